//! Norm and rotation of the queries of one KV head's group, and the stores of its keys and values; one task per KV
//! head.

use super::elementwise::{rms_norm_in_place, rotate};
use crate::kv::StoredAt;
use crate::numerics::{bf16_bits, bf16_pair, quantise};
use crate::{Batch, HEAD_DIM_MAX, HeadShape, HostRope, KvDtype, KvGeometry, KvPart, KvView, TILE_TOKENS};

pub(super) struct Append<'a> {
    pub(super) qkv: *mut f32,
    pub(super) shape: HeadShape,
    pub(super) rope: Option<&'a HostRope>,
    pub(super) q_norm: Option<&'a [f32]>,
    pub(super) k_norm: Option<&'a [f32]>,
    pub(super) norm_eps: f32,
    pub(super) batch: &'a Batch<'a>,
    pub(super) kv: &'a KvView,
    pub(super) layer: usize,
}

/// Does all rows for one KV head: so a tile has one writer, whatever blocks the rows share.
///
/// # Safety
/// `qkv` has the rows of the batch, and no other task does the same head; blocks are inside the pool and nobody else
/// writes them; the level's instructions exist.
#[inline(always)]
pub(super) unsafe fn append_head(call: &Append<'_>, kv_head: usize) {
    let HeadShape { heads, kv_heads, head_dim } = call.shape;
    let group = heads / kv_heads;
    let geometry = call.kv.geometry();
    for sequence in call.batch.sequences {
        let table = &call.batch.blocks[sequence.blocks.start as usize..];
        for row in sequence.rows.clone() {
            let position = (sequence.first_position + (row - sequence.rows.start)) as usize;
            // SAFETY: the row exists, and its columns for this head belong to this task.
            let head = |index: usize| unsafe {
                let first = call.qkv.add(row as usize * call.shape.qkv_cols() + index * head_dim);
                std::slice::from_raw_parts_mut(first, head_dim)
            };
            for q in kv_head * group..(kv_head + 1) * group {
                finish(call, head(q), call.q_norm, position);
            }
            let mut key = [0.0; HEAD_DIM_MAX];
            let key = &mut key[..head_dim];
            key.copy_from_slice(head(heads + kv_head));
            finish(call, key, call.k_norm, position);
            let stored = StoredAt::of(position, table, geometry);
            let tile = |part| Tile { start: call.kv.tile_ptr(stored.tile(call.layer, part, kv_head)), geometry };
            // SAFETY: the tiles lie inside the pool and have this task as their only writer.
            unsafe {
                tile(KvPart::Key).store_key(stored.token, key);
                tile(KvPart::Value).store_value(stored.token, head(heads + kv_heads + kv_head));
            }
        }
    }
}

#[inline(always)]
fn finish(call: &Append<'_>, head: &mut [f32], norm: Option<&[f32]>, position: usize) {
    if let Some(weight) = norm {
        rms_norm_in_place(head, weight, call.norm_eps);
    }
    if let Some(HostRope { half, cos, sin, .. }) = call.rope {
        rotate(head, &cos[position * half..][..*half], &sin[position * half..][..*half]);
    }
}

struct Tile<'a> {
    start: *mut u8,
    geometry: &'a KvGeometry,
}

impl Tile<'_> {
    /// # Safety
    /// The tile is inside the pool, `token` below 16, `key` has `head_dim` values, nobody else writes.
    #[inline(always)]
    unsafe fn store_key(&self, token: usize, key: &[f32]) {
        let words = self.start.cast::<u32>();
        // SAFETY: word `i * 16 + token` is the token's word in row `i` of `[word][token]`; in int8 a word has half the
        // size.
        unsafe {
            self.clear_if_first(token);
            match self.geometry.dtype {
                KvDtype::Bf16 => {
                    let mut pairs = [0; HEAD_DIM_MAX / 2];
                    for (word, pair) in pairs.iter_mut().zip(key.as_chunks::<2>().0) {
                        *word = bf16_pair(pair[0], pair[1]);
                    }
                    for (i, word) in pairs[..key.len() / 2].iter().enumerate() {
                        words.add(i * TILE_TOKENS + token).write(*word);
                    }
                }
                KvDtype::F32 => {
                    for (i, value) in key.iter().enumerate() {
                        words.add(i * TILE_TOKENS + token).write(value.to_bits());
                    }
                }
                KvDtype::Int8 => {
                    let mut integers = [0; HEAD_DIM_MAX];
                    self.scale(token).write(quantise(key, &mut integers));
                    for (i, pair) in integers[..key.len()].as_chunks::<2>().0.iter().enumerate() {
                        self.start.cast::<[i8; 2]>().add(i * TILE_TOKENS + token).write(*pair);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for `store_key`.
    #[inline(always)]
    unsafe fn store_value(&self, token: usize, value: &[f32]) {
        let head_dim = self.geometry.head_dim;
        let words = self.start.cast::<u32>();
        // SAFETY: `[token / 2][dim]` words for bf16, `[token][dim]` for f32, `[token / 2][dim]` half words for int8.
        unsafe {
            self.clear_if_first(token);
            match self.geometry.dtype {
                KvDtype::Bf16 => {
                    let pairs = std::slice::from_raw_parts_mut(words.add(token / 2 * head_dim), head_dim);
                    if token.is_multiple_of(2) {
                        // The other token of the pair becomes zero; its weight is 0 until it is stored.
                        for (pair, value) in pairs.iter_mut().zip(value) {
                            *pair = bf16_bits(*value);
                        }
                    } else {
                        for (pair, value) in pairs.iter_mut().zip(value) {
                            *pair = *pair & 0xffff | bf16_bits(*value) << 16;
                        }
                    }
                }
                KvDtype::F32 => {
                    let target = std::slice::from_raw_parts_mut(words.cast::<f32>().add(token * head_dim), head_dim);
                    target.copy_from_slice(value);
                }
                KvDtype::Int8 => {
                    let mut integers = [0; HEAD_DIM_MAX];
                    self.scale(token).write(quantise(value, &mut integers));
                    let first = self.start.cast::<[i8; 2]>().add(token / 2 * head_dim);
                    let pairs = std::slice::from_raw_parts_mut(first, head_dim);
                    for (pair, integer) in pairs.iter_mut().zip(integers) {
                        // As for bf16, the other token becomes zero.
                        *pair = if token.is_multiple_of(2) { [integer, 0] } else { [pair[0], integer] };
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scale(&self, token: usize) -> *mut f32 {
        // SAFETY: the scales lie behind the elements of the tile, one per token.
        unsafe { self.start.add(self.geometry.scales_offset()).cast::<f32>().add(token) }
    }

    /// Clears the tile before its first token is stored: its bytes then depend only on its tokens.
    #[inline(always)]
    unsafe fn clear_if_first(&self, token: usize) {
        if token == 0 {
            // SAFETY: a tile has `tile_bytes` bytes.
            unsafe { std::ptr::write_bytes(self.start, 0, self.geometry.tile_bytes()) };
        }
    }
}
