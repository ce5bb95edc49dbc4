//! Calls of functions of libraries that may be absent or too old; only this file looks up symbols.
//!
//! cudarc panics when a library or a symbol is missing, so both are looked up before the call. It takes results as a
//! Rust enum: a result code unknown to CUDA 13.0 would be undefined behaviour, so a driver that has new codes for the
//! functions used here needs newer bindings.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null;
use std::sync::OnceLock;

use cudarc::cublaslt::sys as lt_sys;
use cudarc::driver::sys;

use super::CudaError;

/// Calls a driver function, as a `Result<(), CudaError>`. The SAFETY sentence of the caller's `unsafe` block is about
/// the arguments; this macro checks that the function exists.
macro_rules! cu {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        static PRESENT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let function = stringify!($function);
        if *PRESENT.get_or_init(|| $crate::cuda::call::driver_has(function)) {
            $crate::cuda::call::outcome(function, cudarc::driver::sys::$function($($argument),*))
        } else {
            Err($crate::cuda::call::missing(function))
        }
    }};
}

/// Calls a function of cuBLASLt likewise.
macro_rules! lt {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        static PRESENT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let function = stringify!($function);
        if *PRESENT.get_or_init(|| $crate::cuda::call::blas_has(function)) {
            $crate::cuda::call::blas_outcome(function, cudarc::cublaslt::sys::$function($($argument),*))
        } else {
            Err($crate::cuda::call::blas_missing(function))
        }
    }};
}

pub(super) use {cu, lt};

pub(super) fn driver_is_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads libcuda, which is made to be loaded; its initialisers run and touch nothing of ours.
    *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() })
}

pub(super) fn blas_is_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads libcublasLt, which is made to be loaded; its initialisers run and touch nothing of ours.
    *PRESENT.get_or_init(|| unsafe { lt_sys::is_culib_present() })
}

pub(super) fn driver_has(function: &str) -> bool {
    // SAFETY: the library is there, and the symbol's address is only compared, never called or read through.
    driver_is_present() && unsafe { sys::culib().get::<*const c_void>(function.as_bytes()).is_ok() }
}

pub(super) fn blas_has(function: &str) -> bool {
    // SAFETY: as in `driver_has`.
    blas_is_present() && unsafe { lt_sys::culib().get::<*const c_void>(function.as_bytes()).is_ok() }
}

pub(super) fn missing(function: &'static str) -> CudaError {
    if driver_is_present() { CudaError::Missing { library: "driver", function } } else { CudaError::NoDriver }
}

pub(super) fn blas_missing(function: &'static str) -> CudaError {
    if blas_is_present() { CudaError::Missing { library: "libcublasLt", function } } else { CudaError::NoBlas }
}

pub(super) fn outcome(function: &'static str, result: sys::CUresult) -> Result<(), CudaError> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Err(CudaError::NoDevice),
        refused => Err(CudaError::Call {
            function,
            code: refused as u32,
            name: described("cuGetErrorName", refused),
            message: described("cuGetErrorString", refused),
        }),
    }
}

pub(super) fn blas_outcome(function: &'static str, status: lt_sys::cublasStatus_t) -> Result<(), CudaError> {
    match status {
        lt_sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        refused => Err(CudaError::Blas { function, status: format!("{refused:?}") }),
    }
}

/// The driver's name or text of a result; cudarc's name if the driver has none.
fn described(function: &'static str, result: sys::CUresult) -> String {
    let mut text: *const c_char = null();
    let known = driver_has(function)
        // SAFETY: the functions exist; they store the address of a constant text, or refuse and store null.
        && unsafe {
            match function {
                "cuGetErrorName" => sys::cuGetErrorName(result, &mut text),
                _ => sys::cuGetErrorString(result, &mut text),
            }
        } == sys::CUresult::CUDA_SUCCESS;
    if known && !text.is_null() {
        // SAFETY: the driver's texts end with NUL and live as long as the library, which is never unloaded.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    } else {
        format!("{result:?}")
    }
}
