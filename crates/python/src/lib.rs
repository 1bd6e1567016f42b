//! The core of the bus as a Python module: conversions, the message type and the pump over `neuralcore-bus`.
//!
//! What runs once a message goes through raw types and vectorcalls; everything else is ordinary PyO3.

#[cfg(not(all(Py_3_10, not(PyPy), not(GraalPy))))]
compile_error!("neuralcore's native core is for CPython 3.10 and later");

mod args;
mod awaitable;
mod bucket;
mod clock;
mod drive;
mod entry;
mod failure;
mod fork;
mod freelist;
mod globals;
mod handle;
mod ids;
mod mailbox;
mod mailbox_type;
mod many;
mod many_type;
mod message;
mod message_type;
mod obj;
mod parcel;
mod publish;
mod pump;
mod pump_type;
mod rawtype;
mod ready;
mod results;
mod route;
mod router;
mod router_type;
mod run;
mod stats;
mod step;
mod ticket;
mod waiting;
mod waiting_type;
mod waker;

use std::ffi::CStr;

use pyo3::prelude::*;

type Documented = (&'static CStr, &'static CStr);

const ROUTE_PUBLISH: Documented = (
    c"publish",
    c"publish($self, payload, *, priority=None, headers=None, key=None, ttl=None, delay=None, not_before=None, \
    correlation_id=None, reply_to=None, content_type=None, message_id=None, idempotency_key=None, mandatory=False)\n--\n\nStraight to the mailboxes.",
);

const PUBLISH: Documented = (
    c"publish",
    c"publish($self, channel, payload, *, priority=None, headers=None, key=None, ttl=None, delay=None, not_before=None, \
    correlation_id=None, reply_to=None, content_type=None, message_id=None, idempotency_key=None, mandatory=False)\n--\n\nThe awaitable yields the id, or None when an overflow policy dropped the message.",
);

const PUBLISH_NOWAIT: Documented = (
    c"publish_nowait",
    c"publish_nowait($self, channel, payload, *, priority=None, headers=None, key=None, ttl=None, delay=None, not_before=None, \
    correlation_id=None, reply_to=None, content_type=None, message_id=None, idempotency_key=None, mandatory=False)\n--\n\nPublish without waiting.",
);

#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    if globals::load(py)? {
        fork::install(py)?;
    }
    stats::install(module)?;
    module.add("IMPLEMENTATION", "native")?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add("Message", &globals::globals().message_type)?;
    module.add("Pump", &globals::globals().pump_type)?;
    module.add_class::<clock::PyClock>()?;
    module.add_class::<mailbox::Mailbox>()?;
    module.add_class::<route::Route>()?;
    module.add_class::<router::Router>()?;
    module.add_class::<bucket::TokenBucket>()?;
    rawtype::add_method(
        py.get_type::<route::Route>().as_type_ptr(),
        ROUTE_PUBLISH,
        route::publish,
    )?;
    let router = py.get_type::<router::Router>().as_type_ptr();
    rawtype::add_method(router, PUBLISH, router::publish)?;
    rawtype::add_method(router, PUBLISH_NOWAIT, router::publish_nowait)?;
    let sequence = py.import("collections.abc")?.getattr("Sequence")?;
    sequence.call_method1("register", (py.get_type::<results::Results>(),)).map(drop)
}
