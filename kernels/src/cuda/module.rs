//! Loading and starting kernels; knows nothing of what they compute.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{from_mut, from_ref, null_mut};
use std::rc::Rc;

use cudarc::driver::sys;
use cudarc::driver::sys::CUjit_option_enum as JitOption;

use super::call::cu;
use super::{Context, CudaError, Stream};

const LOG_BYTES: usize = 8 << 10;

/// A set of kernels on the device.
#[derive(Debug)]
pub struct Module {
    handle: sys::CUmodule,
    _context: Rc<Context>,
}

impl Module {
    /// Compiles PTX text with the driver's compiler and loads it. An error has the compiler's output.
    pub fn from_ptx(context: &Rc<Context>, ptx: &str) -> Result<Rc<Module>, CudaError> {
        let text =
            CString::new(ptx).map_err(|_| CudaError::Invalid { what: "PTX text with a NUL in it".to_owned() })?;
        let mut log = [0u8; LOG_BYTES];
        let mut options = [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The size is passed by value, in the place of a pointer.
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), LOG_BYTES as *mut c_void];
        let mut handle = null_mut();
        // SAFETY: the text ends with NUL; options and values are two each and, with the log, live until the call
        // returns; the log has the length that is passed; the context is current on this thread.
        let loaded = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            cu!(cuModuleLoadDataEx(&mut handle, text.as_ptr().cast(), 2, options, values))
        };
        match loaded {
            Ok(()) => Ok(Rc::new(Module { handle, _context: Rc::clone(context) })),
            Err(source) => Err(CudaError::Compile { source: Box::new(source), log: written(&log) }),
        }
    }

    /// The kernel named `name`.
    pub fn function(self: &Rc<Self>, name: &str) -> Result<Function, CudaError> {
        let invalid = |_| CudaError::Invalid { what: format!("kernel name {name:?}") };
        let name = CString::new(name).map_err(invalid)?;
        let mut handle = null_mut();
        // SAFETY: writes one handle; the name ends with NUL; the module lives.
        unsafe { cu!(cuModuleGetFunction(&mut handle, self.handle, name.as_ptr().cast::<c_char>())) }?;
        Ok(Function { handle, _module: Rc::clone(self) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the handle is this module's own; functions of it held it, so none is left.
        let _refused = unsafe { cu!(cuModuleUnload(self.handle)) };
    }
}

fn written(log: &[u8]) -> String {
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

/// One kernel.
#[derive(Debug)]
pub struct Function {
    handle: sys::CUfunction,
    _module: Rc<Module>,
}

/// Threads that run a kernel (one dimension).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub blocks: u32,
    /// Threads of each block.
    pub threads_per_block: u32,
}

/// A kernel's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A 32-bit number.
    U32(u32),
    /// A 64-bit number or an address.
    U64(u64),
}

impl Function {
    /// Queues the kernel.
    ///
    /// # Safety
    /// The arguments fit the kernel in number, order and width. The memory that it touches is large enough and, until
    /// the stream has finished, neither freed nor used otherwise.
    pub unsafe fn launch(&self, stream: &Stream, grid: Grid, arguments: &[Argument]) -> Result<(), CudaError> {
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        let (blocks, threads) = (grid.blocks, grid.threads_per_block);
        // SAFETY: the driver copies each argument before it returns, with the widths that the kernel declares, which
        // are those of `arguments` as the caller promises; function and stream live.
        unsafe {
            cu!(cuLaunchKernel(
                self.handle,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                stream.handle,
                pointers.as_mut_ptr(),
                null_mut()
            ))
        }
    }

    /// Number of blocks of `threads_per_block` that an SM can hold at a time.
    pub fn blocks_per_sm(&self, threads_per_block: u32) -> Result<u32, CudaError> {
        let threads = c_int::try_from(threads_per_block)
            .map_err(|_| CudaError::Invalid { what: format!("blocks of {threads_per_block} threads") })?;
        let mut blocks: c_int = 0;
        // SAFETY: writes one number; the function lives.
        unsafe { cu!(cuOccupancyMaxActiveBlocksPerMultiprocessor(from_mut(&mut blocks), self.handle, threads, 0)) }?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }
}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        match self {
            Argument::U32(value) => from_ref(value).cast_mut().cast(),
            Argument::U64(value) => from_ref(value).cast_mut().cast(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_log_ends_at_its_nul() {
        assert_eq!(written(b"ptxas fatal\n\0rest"), "ptxas fatal");
        assert_eq!(written(&[0; 4]), "");
    }
}
