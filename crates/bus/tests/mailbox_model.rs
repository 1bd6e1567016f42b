//! Whatever is done to a mailbox, it answers as the naive one does, and no item is lost or doubled.

#![cfg(not(loom))]

mod naive;

use naive::{Item, Naive, Ticket};
use neuralcore_bus::mailbox::*;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Debug)]
enum Step {
    Push(i64, Option<&'static str>),
    PushMany(i64, Vec<Option<&'static str>>),
    Offer(i64, Option<&'static str>),
    Reserve,
    ReserveFrom(usize),
    Enter(i64, Option<&'static str>),
    Delay(i64, Option<&'static str>, u64),
    DelayUntil(i64, Option<&'static str>, u64),
    Unreserve,
    Cancel(usize),
    Take,
    TakeMany(usize),
    Ack(usize),
    AckMany(usize),
    AckAndTake(usize),
    Expire(usize),
    Retry(usize, u64),
    Release(usize),
    Promote(u64),
    PromoteUntil(u64),
    Configure(Option<usize>, Option<Overflow>),
    TakeRelaxed(i64),
    Clear,
    Close,
    Join,
    Leave(usize),
    Idle(usize),
    Away(usize),
    Resumed(usize),
}

fn rank() -> impl Strategy<Value = i64> {
    prop_oneof![8 => select(&[0i64, 50, 51, 255][..]), 1 => select(&[-7, 256, i64::MAX][..])]
}

fn key() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![2 => Just(None), 3 => select(&["j", "k"][..]).prop_map(Some)]
}

fn overflow() -> impl Strategy<Value = Overflow> {
    select(&[Overflow::Block, Overflow::DropNew, Overflow::DropOld, Overflow::Reject][..])
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..9usize;
    let delay = 0..4u64;
    prop_oneof![
        12 => (rank(), key()).prop_map(|(rank, key)| Step::Push(rank, key)),
        4 => (rank(), prop::collection::vec(key(), 0..5))
            .prop_map(|(rank, keys)| Step::PushMany(rank, keys)),
        2 => (rank(), key()).prop_map(|(rank, key)| Step::Offer(rank, key)),
        5 => Just(Step::Reserve),
        2 => any.clone().prop_map(Step::ReserveFrom),
        4 => (rank(), key()).prop_map(|(rank, key)| Step::Enter(rank, key)),
        2 => (rank(), key(), delay.clone()).prop_map(|(rank, key, d)| Step::Delay(rank, key, d)),
        1 => (rank(), key(), delay.clone())
            .prop_map(|(rank, key, wall)| Step::DelayUntil(rank, key, wall)),
        1 => Just(Step::Unreserve),
        1 => any.clone().prop_map(Step::Cancel),
        14 => Just(Step::Take),
        4 => (0..5usize).prop_map(Step::TakeMany),
        6 => any.clone().prop_map(Step::Ack),
        2 => (0..5usize).prop_map(Step::AckMany),
        4 => any.clone().prop_map(Step::AckAndTake),
        1 => any.clone().prop_map(Step::Expire),
        4 => (any.clone(), delay.clone()).prop_map(|(at, delay)| Step::Retry(at, delay)),
        3 => any.clone().prop_map(Step::Release),
        3 => delay.clone().prop_map(Step::Promote),
        1 => delay.prop_map(Step::PromoteUntil),
        1 => (prop::option::of(1..9usize), prop::option::of(overflow()))
            .prop_map(|(capacity, overflow)| Step::Configure(capacity, overflow)),
        2 => rank().prop_map(Step::TakeRelaxed),
        1 => Just(Step::Join),
        1 => any.clone().prop_map(Step::Leave),
        4 => any.clone().prop_map(Step::Idle),
        2 => any.clone().prop_map(Step::Away),
        2 => any.prop_map(Step::Resumed),
    ]
}

/// Few keys, few ranks and no room: what is parked is overtaken, released, evicted and comes back.
fn crowded() -> impl Strategy<Value = Step> {
    let any = 0..9usize;
    let put = || (select(&[0i64, 50][..]), select(&[None, Some("j"), Some("k")][..]));
    prop_oneof![
        10 => put().prop_map(|(rank, key)| Step::Push(rank, key)),
        3 => put().prop_map(|(rank, key)| Step::Offer(rank, key)),
        12 => Just(Step::Take),
        5 => any.clone().prop_map(Step::Ack),
        5 => any.clone().prop_map(Step::Release),
        3 => (any, 0..4u64).prop_map(|(at, delay)| Step::Retry(at, delay)),
        2 => (0..4u64).prop_map(Step::Promote),
        1 => Just(Step::TakeRelaxed(0)),
    ]
}

/// Mostly ordinary steps; a mailbox is cleared seldom, and closed late if at all.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let part = || prop::collection::vec(step(), 0..60);
    (part(), part(), part(), part()).prop_map(|(first, second, third, closed)| {
        let parts = [first, vec![Step::Clear], second, third, vec![Step::Close], closed];
        [parts.concat(), vec![Step::Clear]].concat()
    })
}

struct Run {
    real: Mailbox<Item, Ticket>,
    naive: Naive,
    now_ns: u64,
    made: u32,
    tickets: Ticket,
    in_flight: Vec<(i64, Item)>,
    /// How many items got in, and how many of them are out.
    entered: usize,
    gone: usize,
}

/// Does the same to both and compares the answers.
macro_rules! same {
    ($run:ident.$method:ident($($argument:expr),*)) => {
        same!($run.$method($($argument),*), $($argument),*)
    };
    ($run:ident.$method:ident($($real:expr),*), $($naive:expr),*) => {{
        let real = $run.real.$method($($real),*);
        prop_assert_eq!(&real, &$run.naive.$method($($naive),*), "{}", stringify!($method));
        real
    }};
}

impl Run {
    fn new(config: MailboxConfig) -> Self {
        Self {
            real: Mailbox::new(config),
            naive: Naive::new(config),
            now_ns: 0,
            made: 0,
            tickets: 0,
            in_flight: Vec::new(),
            entered: 0,
            gone: 0,
        }
    }

    fn item(&mut self, key: Option<&'static str>) -> Item {
        self.made += 1;
        Item { id: self.made, key }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    fn pick(&mut self, n: usize) -> Option<(i64, Item)> {
        let at = n.checked_rem(self.in_flight.len())?;
        Some(self.in_flight.swap_remove(at))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Push(rank, key) => {
                let item = self.item(key);
                match same!(self.push(rank, item.clone())) {
                    Push::Queued(_) => self.entered += 1,
                    Push::Replaced { .. } => {
                        (self.entered, self.gone) = (self.entered + 1, self.gone + 1)
                    }
                    Push::Dropped(_) | Push::Rejected(_) | Push::Full(_) | Push::Closed(_) => {}
                }
            }
            Step::PushMany(rank, ref keys) => {
                let items: Vec<_> = keys.iter().map(|key| self.item(*key)).collect();
                self.entered +=
                    same!(self.push_many(rank, items.clone().into_iter()), rank, items).0;
            }
            Step::Offer(rank, key) => {
                let item = self.item(key);
                self.entered += usize::from(same!(self.offer(rank, item.clone())).is_ok());
            }
            Step::Reserve => {
                let ticket = self.ticket();
                let _ = same!(self.reserve(ticket), ticket, None);
            }
            Step::ReserveFrom(n) => {
                let ticket = self.ticket();
                if let Some(worker) = self.naive.worker(n) {
                    let real = self.real.reserve_from(worker, ticket);
                    prop_assert_eq!(real, self.naive.reserve(ticket, Some(worker)));
                }
            }
            Step::Enter(rank, key) if self.naive.reserved > 0 => {
                let item = self.item(key);
                if let Entered::Queued { evicted, .. } = same!(self.enter(rank, item.clone())) {
                    self.entered += 1;
                    self.gone += usize::from(evicted.is_some());
                }
            }
            Step::Delay(rank, key, delay) if self.naive.reserved > 0 => {
                let (item, now_ns) = (self.item(key), self.now_ns);
                let held = same!(self.delay(rank, item.clone(), now_ns + delay, now_ns));
                if let Delayed::Held { evicted, .. } = held {
                    self.entered += 1;
                    self.gone += usize::from(evicted.is_some());
                }
            }
            // This wall clock jumps about.
            Step::DelayUntil(rank, key, wall_ns) if self.naive.reserved > 0 => {
                let item = self.item(key);
                let held = same!(self.delay_until(rank, item.clone(), wall_ns, 1));
                if let Delayed::Held { evicted, .. } = held {
                    self.entered += 1;
                    self.gone += usize::from(evicted.is_some());
                }
            }
            Step::Unreserve if self.naive.reserved > 0 => {
                same!(self.unreserve());
            }
            Step::Enter(..) | Step::Delay(..) | Step::DelayUntil(..) | Step::Unreserve => {}
            Step::Cancel(n) => {
                let ticket = self.tickets.saturating_sub(n as Ticket);
                let _ = same!(self.cancel(|&waiting| waiting == ticket), ticket);
            }
            Step::Take => self.in_flight.extend(same!(self.take())),
            Step::TakeMany(limit) => {
                let mut taken = Vec::new();
                self.real.take_many(limit, &mut taken);
                let naive: Vec<_> = std::iter::from_fn(|| self.naive.take()).take(limit).collect();
                prop_assert_eq!(&taken, &naive);
                self.in_flight.append(&mut taken);
            }
            Step::AckMany(count) => {
                let at = self.in_flight.len().saturating_sub(count);
                let items: Vec<_> = self.in_flight.drain(at..).map(|(_, item)| item).collect();
                self.gone += items.len();
                let keys = items.iter().map(|item| item.key);
                let _ = same!(self.ack_many(keys), &items);
            }
            Step::TakeRelaxed(rank) => {
                self.gone += usize::from(same!(self.take_relaxed(rank)).item.is_some());
            }
            Step::Promote(elapsed) => {
                self.now_ns += elapsed;
                let now_ns = self.now_ns;
                let _ = same!(self.promote(now_ns));
            }
            Step::PromoteUntil(wall_ns) => {
                let _ = same!(self.promote_until(wall_ns));
            }
            Step::Configure(capacity, overflow) => {
                same!(self.configure(capacity, overflow));
            }
            Step::Clear => self.gone += same!(self.clear()).items.len(),
            Step::Close => {
                let _ = same!(self.close());
            }
            Step::Ack(n)
            | Step::AckAndTake(n)
            | Step::Expire(n)
            | Step::Release(n)
            | Step::Retry(n, _) => {
                if let Some((rank, item)) = self.pick(n) {
                    self.settle(step, rank, item)?;
                }
            }
            Step::Join => {
                let worker = self.real.join();
                self.naive.join(worker);
            }
            Step::Leave(n) | Step::Idle(n) | Step::Away(n) | Step::Resumed(n) => {
                if let Some(worker) = self.naive.worker(n) {
                    self.work(step, worker)?;
                }
            }
        }
        self.check()
    }

    fn settle(&mut self, step: &Step, rank: i64, item: Item) -> Result<(), TestCaseError> {
        let now_ns = self.now_ns;
        match *step {
            Step::Ack(_) => {
                let _ = same!(self.ack(item.key), &item);
                self.gone += 1;
            }
            Step::AckAndTake(_) => {
                let (_, next) = same!(self.settle_and_take(item.key), &item);
                self.in_flight.extend(next);
                self.gone += 1;
            }
            Step::Expire(_) => {
                let _ = same!(self.expire(item.key), &item);
                self.gone += 1;
            }
            Step::Retry(_, delay) => {
                let _ = same!(self.retry(rank, item.clone(), now_ns + delay, now_ns));
            }
            _ => {
                same!(self.release(rank, item.clone()));
            }
        }
        Ok(())
    }

    fn work(&mut self, step: &Step, worker: WorkerId) -> Result<(), TestCaseError> {
        match step {
            Step::Leave(_) => {
                same!(self.leave(worker));
            }
            Step::Idle(_) => {
                same!(self.idle(worker));
            }
            Step::Away(_) => {
                prop_assert_eq!(self.real.suspended(worker), self.naive.away(worker));
            }
            _ => same!(self.resumed(worker)),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let stats = self.real.stats();
        prop_assert_eq!(stats, self.naive.stats());
        prop_assert_eq!(self.real.depth(), self.naive.depth());
        prop_assert_eq!(self.real.finished(), self.naive.finished());
        prop_assert_eq!(stats.in_flight, self.in_flight.len());
        prop_assert_eq!(self.entered, self.gone + self.real.depth() + stats.in_flight, "conserved");
        prop_assert!(stats.waiting == 0 || self.naive.used() >= stats.capacity, "room but waiting");
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_mailbox_answers_as_the_naive_one(
        capacity in 1..9usize,
        overflow in overflow(),
        hold_keys: bool,
        steps in steps(),
    ) {
        let mut run = Run::new(MailboxConfig { capacity, overflow, hold_keys });
        for step in &steps {
            run.step(step)?;
        }
    }

    #[test]
    fn a_crowded_one_does_too(
        capacity in 2..12usize,
        hold_keys: bool,
        steps in prop::collection::vec(crowded(), 0..150),
    ) {
        let overflow = Overflow::DropOld;
        let mut run = Run::new(MailboxConfig { capacity, overflow, hold_keys });
        for step in &steps {
            run.step(step)?;
        }
    }
}
