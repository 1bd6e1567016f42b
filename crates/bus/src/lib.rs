//! The core of the bus: a bounded priority mailbox, the router in front of it, and the small parts they need.
//!
//! Nothing here knows of Python, of tasks or of payloads: a mailbox holds items of any type and answers whom to wake.
//! No item is dropped while a lock is held; the few callbacks that run under one say so.

#![deny(unsafe_code)]
#![deny(missing_docs)]

mod answers;
mod arena;
mod delayed;
mod keys;
mod ranked;
mod state;
mod sync;
mod workers;

pub mod bucket;
pub mod clock;
pub mod dedup;
pub mod histogram;
pub mod ids;
pub mod lock;
pub mod mailbox;
pub mod queue;
pub mod router;

pub use bucket::TokenBucket;
pub use clock::Clock;
pub use dedup::DedupWindow;
pub use histogram::Histogram;
pub use ids::{Id, IdSource};
pub use mailbox::{Keyed, Mailbox, MailboxConfig, Overflow, WorkerId};
pub use queue::PriorityQueue;
pub use router::Router;
