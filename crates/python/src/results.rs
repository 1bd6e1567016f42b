//! The ids of many publishes, formatted one by one when somebody looks.

use neuralcore_bus::Id;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PySlice};

use crate::awaitable::Outcome;
use crate::ids;
use crate::obj::{R, Ref};

/// Stands for an entry in `given`.
const GIVEN: u64 = u64::MAX;

/// A sequence of ids, with None for what was dropped.
#[pyclass(frozen, name = "Ids", module = "neuralcore._native")]
pub(crate) struct Results {
    prefix: u64,
    counts: Vec<u64>,
    /// By ascending index.
    given: Vec<(usize, Ref)>,
}

impl Results {
    pub(crate) fn new(prefix: u64, expected: usize) -> Results {
        Results { prefix, counts: Vec::with_capacity(expected), given: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Id { prefix, seq } if prefix == self.prefix => self.counts.push(seq),
            other => self.push_given(other),
        }
    }

    /// So many ids in a row.
    pub(crate) fn push_block(&mut self, first: Id, count: usize) {
        let counts = first.count..first.count + count as u64;
        if first.prefix == self.prefix {
            return self.counts.extend(counts);
        }
        counts.for_each(|seq| self.push_given(Outcome::Id { prefix: first.prefix, seq }));
    }

    #[cold]
    fn push_given(&mut self, outcome: Outcome) {
        let value = match outcome {
            Outcome::Id { prefix, seq } => {
                ids::formatted(prefix, seq).unwrap_or_else(|_| Ref::none())
            }
            Outcome::Object(value) => value,
        };
        self.given.push((self.counts.len(), value));
        self.counts.push(GIVEN);
    }

    fn at(&self, index: usize) -> R<Ref> {
        match self.counts[index] {
            GIVEN => Ok(match self.given.binary_search_by_key(&index, |(place, _)| *place) {
                Ok(found) => self.given[found].1.clone(),
                Err(_) => Ref::none(),
            }),
            seq => ids::formatted(self.prefix, seq),
        }
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = (0..self.len()).map(|index| self.at(index)).collect::<R<Vec<Ref>>>()?;
        PyList::new(py, all)
    }
}

#[pymethods]
impl Results {
    fn __len__(&self) -> usize {
        self.len()
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = index.py();
        if index.is_instance_of::<PySlice>() {
            return self.list(py)?.as_any().get_item(index);
        }
        let index: isize = index.extract()?;
        let place = if index < 0 { index + self.len() as isize } else { index };
        match usize::try_from(place).ok().filter(|&place| place < self.len()) {
            Some(place) => Ok(self.at(place)?.bind(py).clone()),
            None => Err(PyIndexError::new_err("index out of range")),
        }
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.list(py)?.try_iter()?.into_any())
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let list = self.list(py)?;
        list.reverse()?;
        Ok(list.try_iter()?.into_any())
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.list(value.py())?.as_any().contains(value)
    }

    fn index<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.list(value.py())?.as_any().call_method1("index", (value,))
    }

    fn count<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.list(value.py())?.as_any().call_method1("count", (value,))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = other.py();
        match other.cast::<Results>() {
            Ok(same) => self.list(py)?.eq(same.get().list(py)?),
            Err(_) => self.list(py)?.eq(other),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.list(py)?.repr()?.to_string())
    }
}
