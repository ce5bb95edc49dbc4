//! Dense bf16 matrix products by NVIDIA's cuBLASLt, where that library is installed.

use std::ffi::c_void;
use std::ptr::{from_ref, null_mut};
use std::rc::Rc;

use cudarc::cublaslt::sys;
use cudarc::cublaslt::sys::{
    cublasComputeType_t as Compute, cublasLtMatmulDescAttributes_t as DescriptionAttribute,
    cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute, cublasStatus_t as Status, cudaDataType as DataType,
};

use super::call::{blas_is_present, blas_missing, lt};
use super::{Context, CudaError, DeviceBytes, DeviceRange, Stream};

/// `cublasOperation_t` of cublas_api.h, which the bindings lack: transposition of a stored matrix.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
enum Operation {
    AsStored = 0,
    Transposed = 1,
}

const CANDIDATES_MAX: usize = 8;

/// A handle of cuBLASLt.
#[derive(Debug)]
pub struct BlasLt {
    handle: sys::cublasLtHandle_t,
    context: Rc<Context>,
}

impl BlasLt {
    /// Loads the library (half a gigabyte) and makes a handle. [`CudaError::NoBlas`] if it is not installed.
    pub fn open(context: &Rc<Context>) -> Result<Rc<BlasLt>, CudaError> {
        if !blas_is_present() {
            return Err(CudaError::NoBlas);
        }
        let mut handle = null_mut();
        // SAFETY: writes one handle, for the context that is current on this thread.
        unsafe { lt!(cublasLtCreate(&mut handle)) }?;
        Ok(Rc::new(BlasLt { handle, context: Rc::clone(context) }))
    }

    /// Version of the library; 130100 is 13.1.0.
    pub fn version(&self) -> Result<usize, CudaError> {
        if !super::call::blas_has("cublasLtGetVersion") {
            return Err(blas_missing("cublasLtGetVersion"));
        }
        // SAFETY: the function exists, takes nothing and returns a number.
        Ok(unsafe { sys::cublasLtGetVersion() })
    }
}

impl Drop for BlasLt {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own; plans held it, so none is left.
        let _refused = unsafe { lt!(cublasLtDestroy(self.handle)) };
    }
}

/// `out[n][m] = Σ_k right[n][k] · left[m][k]`, all row-major bf16 with f32 sums: a linear layer with weights `left` and
/// rows `right`. (In the library's column-major terms, `leftᵀ · right`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Rows of the left matrix.
    pub m: u32,
    /// Rows of the right matrix.
    pub n: u32,
    /// Columns of both.
    pub k: u32,
}

/// A product and the library's algorithms for it, best first by its own estimate.
#[derive(Debug)]
pub struct ProductPlan {
    product: Product,
    description: sys::cublasLtMatmulDesc_t,
    left: sys::cublasLtMatrixLayout_t,
    right: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    candidates: Vec<Candidate>,
    workspace: DeviceBytes,
    blas: Rc<BlasLt>,
}

/// One of the proposed algorithms.
#[derive(Clone, Copy)]
pub struct Candidate(sys::cublasLtMatmulHeuristicResult_t);

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("workspace_bytes", &self.0.workspaceSize).finish_non_exhaustive()
    }
}

impl ProductPlan {
    /// Plans a product whose algorithms may use `workspace_bytes` of device memory.
    pub fn new(blas: &Rc<BlasLt>, product: Product, workspace_bytes: usize) -> Result<ProductPlan, CudaError> {
        let mut plan = ProductPlan {
            product,
            description: null_mut(),
            left: null_mut(),
            right: null_mut(),
            out: null_mut(),
            candidates: Vec::new(),
            workspace: DeviceBytes::new(&blas.context, workspace_bytes)?,
            blas: Rc::clone(blas),
        };
        // SAFETY: writes one handle, which the plan owns from here on.
        unsafe {
            lt!(cublasLtMatmulDescCreate(&mut plan.description, Compute::CUBLAS_COMPUTE_32F, DataType::CUDA_R_32F))
        }?;
        set_operation(plan.description, DescriptionAttribute::CUBLASLT_MATMUL_DESC_TRANSA, Operation::Transposed)?;
        set_operation(plan.description, DescriptionAttribute::CUBLASLT_MATMUL_DESC_TRANSB, Operation::AsStored)?;
        layout(&mut plan.left, product.k, product.m)?;
        layout(&mut plan.right, product.k, product.n)?;
        layout(&mut plan.out, product.m, product.n)?;
        plan.candidates = plan.propose()?;
        Ok(plan)
    }

    /// Proposed algorithms, at least one.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Queues the product with one of this plan's algorithms. Two products of one plan must not run at the same time,
    /// because they share its workspace.
    ///
    /// # Safety
    /// Until the stream has finished, `left` and `right` are neither written nor freed, `out` neither used nor freed,
    /// and the plan lives and is queued in no other stream.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        candidate: &Candidate,
        left: DeviceRange,
        right: DeviceRange,
        out: DeviceRange,
    ) -> Result<(), CudaError> {
        let Product { m, n, k } = self.product;
        for (what, range, rows, columns) in [("left", left, m, k), ("right", right, n, k), ("out", out, n, m)] {
            let wanted = rows as usize * columns as usize * 2;
            if range.len() != wanted {
                let what = format!("{what} of the product has {} bytes, not {wanted}", range.len());
                return Err(CudaError::Invalid { what });
            }
        }
        let (one, zero) = (1.0f32, 0.0f32);
        let pointer = |range: DeviceRange| range.address() as *mut c_void;
        let workspace = self.workspace.range();
        // SAFETY: descriptions and algorithm belong to this plan; the ranges have the lengths that the layouts say and
        // stay, as the caller promises; the scalars are read before the call returns (host pointers, the default).
        unsafe {
            lt!(cublasLtMatmul(
                self.blas.handle,
                self.description,
                from_ref(&one).cast(),
                pointer(left).cast_const(),
                self.left,
                pointer(right).cast_const(),
                self.right,
                from_ref(&zero).cast(),
                pointer(out).cast_const(),
                self.out,
                pointer(out),
                self.out,
                &candidate.0.algo,
                pointer(workspace),
                workspace.len(),
                stream.handle.cast()
            ))
        }
    }

    fn propose(&self) -> Result<Vec<Candidate>, CudaError> {
        let preference = Preference::new(self.workspace.range().len())?;
        let nothing = sys::cublasLtMatmulHeuristicResult_t {
            algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            workspaceSize: 0,
            state: Status::CUBLAS_STATUS_NOT_INITIALIZED,
            wavesCount: 0.0,
            reserved: [0; 4],
        };
        let mut results = [nothing; CANDIDATES_MAX];
        let mut found = 0;
        // SAFETY: all descriptions live; room for as many results as are asked for.
        unsafe {
            lt!(cublasLtMatmulAlgoGetHeuristic(
                self.blas.handle,
                self.description,
                self.left,
                self.right,
                self.out,
                self.out,
                preference.0,
                CANDIDATES_MAX as i32,
                results.as_mut_ptr(),
                &mut found
            ))
        }?;
        let found = usize::try_from(found).unwrap_or(0).min(CANDIDATES_MAX);
        let usable = results[..found].iter().filter(|result| result.state == Status::CUBLAS_STATUS_SUCCESS);
        let candidates: Vec<Candidate> = usable.copied().map(Candidate).collect();
        match candidates.is_empty() {
            false => Ok(candidates),
            true => Err(CudaError::Invalid { what: format!("cuBLASLt proposes no algorithm for {:?}", self.product) }),
        }
    }
}

impl Drop for ProductPlan {
    fn drop(&mut self) {
        for layout in [self.left, self.right, self.out].into_iter().filter(|layout| !layout.is_null()) {
            // SAFETY: made by this plan and used by nobody else.
            let _refused = unsafe { lt!(cublasLtMatrixLayoutDestroy(layout)) };
        }
        if !self.description.is_null() {
            // SAFETY: as above.
            let _refused = unsafe { lt!(cublasLtMatmulDescDestroy(self.description)) };
        }
    }
}

fn set_operation(
    description: sys::cublasLtMatmulDesc_t,
    attribute: DescriptionAttribute,
    operation: Operation,
) -> Result<(), CudaError> {
    let value = from_ref(&operation).cast();
    // SAFETY: the attribute is an `int32_t`, as the enum is; it is copied before the call returns.
    unsafe { lt!(cublasLtMatmulDescSetAttribute(description, attribute, value, size_of::<Operation>())) }
}

fn layout(layout: &mut sys::cublasLtMatrixLayout_t, rows: u32, columns: u32) -> Result<(), CudaError> {
    // SAFETY: writes one handle.
    unsafe { lt!(cublasLtMatrixLayoutCreate(layout, DataType::CUDA_R_16BF, rows.into(), columns.into(), rows.into())) }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(workspace_bytes: usize) -> Result<Preference, CudaError> {
        let mut preference = Preference(null_mut());
        // SAFETY: writes one handle.
        unsafe { lt!(cublasLtMatmulPreferenceCreate(&mut preference.0)) }?;
        let (attribute, bytes) =
            (PreferenceAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes as u64);
        let value = from_ref(&bytes).cast();
        // SAFETY: the attribute is a `uint64_t`, copied before the call returns.
        unsafe { lt!(cublasLtMatmulPreferenceSetAttribute(preference.0, attribute, value, size_of::<u64>())) }?;
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made here and used by nobody else; destroying a null one is refused.
        let _refused = unsafe { lt!(cublasLtMatmulPreferenceDestroy(self.0)) };
    }
}
