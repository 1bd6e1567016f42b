//! Snapshots of the counters, as named tuples.

use neuralcore_bus::histogram::{BOUNDS_NS, HistogramSnapshot};
use neuralcore_bus::mailbox::MailboxStats;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

static HISTOGRAM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static MAILBOX: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static ROUTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Adds the three types and the bounds to the module.
pub(crate) fn install(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("HISTOGRAM_BOUNDS_NS", PyTuple::new(py, BOUNDS_NS)?)?;
    named(module, &HISTOGRAM, "Histogram", "count sum_ns buckets")?;
    let mailbox = "capacity queued parked delayed in_flight waiting \
                   delivered acked retried released dropped expired wait handle";
    named(module, &MAILBOX, "MailboxStats", mailbox)?;
    named(module, &ROUTE, "RouteStats", "published unrouted dropped refused publish")
}

fn named(
    module: &Bound<'_, PyModule>,
    cell: &PyOnceLock<Py<PyAny>>,
    name: &str,
    fields: &str,
) -> PyResult<()> {
    let py = module.py();
    let options = PyDict::new(py);
    options.set_item("module", "neuralcore._native")?;
    let factory = py.import("collections")?.getattr("namedtuple")?;
    let kind = factory.call((name, fields), Some(&options))?;
    let kind = cell.get_or_init(py, || kind.unbind());
    module.add(name, kind.bind(py))
}

fn kind<'py>(py: Python<'py>, cell: &'py PyOnceLock<Py<PyAny>>) -> &'py Bound<'py, PyAny> {
    cell.get(py).expect("the types are made with the module").bind(py)
}

fn histogram<'py>(py: Python<'py>, snapshot: &HistogramSnapshot) -> PyResult<Bound<'py, PyAny>> {
    let buckets = PyTuple::new(py, snapshot.buckets)?;
    kind(py, &HISTOGRAM).call1((snapshot.count(), snapshot.sum_ns, buckets))
}

pub(crate) fn route<'py>(
    py: Python<'py>,
    counters: [u64; 4],
    publish: &HistogramSnapshot,
) -> PyResult<Bound<'py, PyAny>> {
    let [published, unrouted, dropped, refused] = counters;
    kind(py, &ROUTE).call1((published, unrouted, dropped, refused, histogram(py, publish)?))
}

pub(crate) fn mailbox<'py>(py: Python<'py>, stats: &MailboxStats) -> PyResult<Bound<'py, PyAny>> {
    let states =
        [stats.capacity, stats.queued, stats.parked, stats.delayed, stats.in_flight, stats.waiting];
    let counters =
        [stats.delivered, stats.acked, stats.retried, stats.released, stats.dropped, stats.expired];
    let mut fields: Vec<Bound<'py, PyAny>> = Vec::with_capacity(14);
    for state in states {
        fields.push(state.into_pyobject(py)?.into_any());
    }
    for counter in counters {
        fields.push(counter.into_pyobject(py)?.into_any());
    }
    fields.push(histogram(py, &stats.wait)?);
    fields.push(histogram(py, &stats.handle)?);
    kind(py, &MAILBOX).call1(PyTuple::new(py, fields)?)
}
