//! A priority queue is a list that is kept sorted.

#![cfg(not(loom))]

use neuralcore_bus::PriorityQueue;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Debug)]
enum Step {
    PushBack(i64),
    PushFront(i64),
    Pop,
    PopRelaxed,
    Evict,
    Drain,
}

fn rank() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..256i64,
        4 => select(&[0i64, 50, 63, 64, 255][..]),
        2 => select(&[i64::MIN, -1, 256, i64::MAX][..]),
        1 => any::<i64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => rank().prop_map(Step::PushBack),
        10 => rank().prop_map(Step::PushFront),
        12 => Just(Step::Pop),
        5 => Just(Step::PopRelaxed),
        5 => Just(Step::Evict),
        1 => Just(Step::Drain),
    ]
}

#[derive(Default)]
struct Naive(Vec<(i64, u32)>);

impl Naive {
    fn push(&mut self, rank: i64, item: u32, before_equals: bool) {
        let later = |&(other, _): &(i64, u32)| other > rank || (before_equals && other == rank);
        let at = self.0.iter().position(later).unwrap_or(self.0.len());
        self.0.insert(at, (rank, item));
    }

    fn oldest_of_last(&self) -> Option<usize> {
        let (last, _) = self.0.last()?;
        self.0.iter().position(|(rank, _)| rank == last)
    }

    fn depths(&self) -> Vec<(i64, usize)> {
        self.0.chunk_by(|a, b| a.0 == b.0).map(|equals| (equals[0].0, equals.len())).collect()
    }
}

proptest! {
    #[test]
    fn a_queue_answers_as_a_sorted_list(steps in prop::collection::vec(step(), 0..400)) {
        let (mut real, mut naive) = (PriorityQueue::new(), Naive::default());
        for (item, step) in (0..).zip(steps) {
            match step {
                Step::PushBack(rank) => {
                    real.push_back(rank, item);
                    naive.push(rank, item, false);
                }
                Step::PushFront(rank) => {
                    real.push_front(rank, item);
                    naive.push(rank, item, true);
                }
                Step::Pop => {
                    let first = (!naive.0.is_empty()).then(|| naive.0.remove(0));
                    prop_assert_eq!(real.pop(), first);
                }
                Step::PopRelaxed => prop_assert_eq!(real.pop_relaxed(), naive.0.pop()),
                Step::Evict => {
                    let evicted = naive.oldest_of_last().map(|at| naive.0.remove(at));
                    prop_assert_eq!(real.evict(), evicted);
                }
                Step::Drain => prop_assert_eq!(real.drain(), std::mem::take(&mut naive.0)),
            }
            prop_assert_eq!((real.len(), real.is_empty()), (naive.0.len(), naive.0.is_empty()));
            prop_assert_eq!(real.depths(), naive.depths());
            prop_assert_eq!(real.peek_rank(), naive.0.first().map(|first| first.0));
            prop_assert_eq!(real.relaxed_rank(), naive.0.last().map(|last| last.0));
            let first = naive.0.first().map(|(rank, item)| (*rank, item));
            prop_assert_eq!(real.peek(), first);
            let victim = naive.oldest_of_last().map(|at| (naive.0[at].0, &naive.0[at].1));
            prop_assert_eq!(real.peek_evict(), victim);
        }
    }
}
