//! Operations that are the same in all implementations of `Ops` on host memory; knows no arithmetic.

/// Defines these operations and their types inside an `impl Ops`.
macro_rules! host_operations {
    () => {
        type Rope = $crate::HostRope;
        type Routes = $crate::Routes;
        type Counts = $crate::HostCounts;
        type Kv = $crate::KvView;

        fn rope(
            &self,
            positions_max: usize,
            inverse_frequencies: &[f32],
            scale: f32,
        ) -> Result<Self::Rope, $crate::KernelError> {
            $crate::HostRope::new(positions_max, inverse_frequencies, scale)
        }

        fn routes(&self, rows_max: usize, routing: $crate::Routing) -> Result<Self::Routes, $crate::KernelError> {
            $crate::Routes::new(rows_max, routing)
        }

        fn counts(&self, layers: usize, experts: usize) -> Result<Self::Counts, $crate::KernelError> {
            Ok($crate::HostCounts::new(layers, experts))
        }

        fn kv(
            &self,
            memory: &$crate::memory::Region,
            geometry: $crate::KvGeometry,
            window: $crate::KvWindow,
        ) -> Result<Self::Kv, $crate::KernelError> {
            $crate::KvView::of(memory, geometry, window)
        }

        fn wait(&mut self) -> Result<(), $crate::KernelError> {
            Ok(())
        }

        fn write_rows(&self, rows: &mut Self::Rows, data: &[f32]) -> Result<(), $crate::KernelError> {
            $crate::checks::arguments::write_rows(rows, data)?;
            rows.values_mut().copy_from_slice(data);
            Ok(())
        }

        fn read_rows(&self, rows: &Self::Rows, out: &mut [f32]) -> Result<(), $crate::KernelError> {
            $crate::checks::arguments::read_rows(rows, out)?;
            out.copy_from_slice(rows.values());
            Ok(())
        }

        fn host_rows<'r>(&self, rows: &'r Self::Rows, _: &'r mut Vec<f32>) -> Result<&'r [f32], $crate::KernelError> {
            Ok(rows.values())
        }

        fn count_choices(
            &mut self,
            routes: &Self::Routes,
            counts: &mut Self::Counts,
            layer: usize,
        ) -> Result<(), $crate::KernelError> {
            counts.add(routes, layer)
        }

        fn take_counts(
            &mut self,
            counts: &mut Self::Counts,
            totals: &[std::sync::atomic::AtomicU64],
        ) -> Result<(), $crate::KernelError> {
            counts.take(totals)
        }

        fn copy_blocks(&mut self, kv: &Self::Kv, pairs: &[(u32, u32)]) -> Result<(), $crate::KernelError> {
            kv.copy_blocks(pairs)
        }
    };
}

pub(crate) use host_operations;
