//! The Python face of the clock.

use std::sync::Arc;

use neuralcore_bus::Clock;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

#[pyclass(frozen, name = "Clock", module = "neuralcore._native")]
pub(crate) struct PyClock(Arc<Clock>);

impl PyClock {
    pub(crate) fn shared(&self) -> Arc<Clock> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl PyClock {
    #[new]
    #[pyo3(signature = (*, manual = false, time_ns = 0, monotonic_ns = 0))]
    fn new(manual: bool, time_ns: i64, monotonic_ns: u64) -> PyClock {
        let clock = if manual { Clock::manual(time_ns, monotonic_ns) } else { Clock::System };
        PyClock(Arc::new(clock))
    }

    #[getter]
    fn manual(&self) -> bool {
        self.0.is_manual()
    }

    fn time_ns(&self) -> i64 {
        self.0.time_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.monotonic_ns()
    }

    fn advance(&self, ns: i64) -> PyResult<()> {
        let ns = u64::try_from(ns).map_err(|_| {
            PyValueError::new_err(format!(
                "a clock advances by 0 ns or more, not by {ns}; jump() moves the wall clock back"
            ))
        })?;
        self.0.advance(ns).map_err(|_| refused("advance"))
    }

    fn jump(&self, ns: i64) -> PyResult<()> {
        self.0.jump(ns).map_err(|_| refused("jump"))
    }

    fn __repr__(&self) -> String {
        if self.0.is_manual() {
            let (time, monotonic) = (self.0.time_ns(), self.0.monotonic_ns());
            return format!("Clock(manual=True, time_ns={time}, monotonic_ns={monotonic})");
        }
        "Clock()".to_owned()
    }
}

fn refused(verb: &str) -> PyErr {
    PyValueError::new_err(format!("a system clock cannot {verb}; make one with Clock(manual=True)"))
}
