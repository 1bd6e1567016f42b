//! Makes the version of Python known to `cfg`.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
