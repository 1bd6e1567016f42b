//! The Python face of the rate limit.

use std::sync::Arc;

use neuralcore_bus::Clock;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::clock::PyClock;
use crate::obj::GilCell;

#[pyclass(frozen, module = "neuralcore._native")]
pub(crate) struct TokenBucket {
    clock: Arc<Clock>,
    bucket: GilCell<neuralcore_bus::TokenBucket>,
}

#[pymethods]
impl TokenBucket {
    #[new]
    fn new(clock: &Bound<'_, PyClock>, rate: f64, burst: f64) -> PyResult<TokenBucket> {
        let clock = clock.get().shared();
        let bucket = neuralcore_bus::TokenBucket::new(rate, burst, clock.monotonic_ns());
        let bucket = bucket.ok_or_else(|| {
            PyValueError::new_err(format!(
                "a token bucket's rate and burst are positive and finite, not {rate} and {burst}"
            ))
        })?;
        Ok(TokenBucket { clock, bucket: GilCell::new(bucket) })
    }

    #[pyo3(signature = (tokens = 1.0))]
    fn take(&self, tokens: f64) -> f64 {
        let now = self.clock.monotonic_ns();
        // SAFETY: no Python code runs.
        unsafe { self.bucket.get().take(tokens, now) }
    }
}
