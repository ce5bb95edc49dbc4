//! Size of the blocks that `hash_ids` name: files do not say it, but lengths and numbers of ids limit it.

use std::path::Path;

use super::Raw;
use crate::{Error, Result};

/// Tokens per block in Mooncake's traces.
const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// Returns the tokens per block; `None` if no row has blocks.
///
/// A prompt of `n` blocks has more than `(n - 1)` and at most `n` times the block's tokens. All rows together leave a
/// range: Mooncake's 512 if it is inside, else the only power of two.
pub(super) fn tokens(file: &Path, rows: &[Raw], given: Option<u32>) -> Result<Option<u32>> {
    let (mut min, mut max) = (1, u32::MAX);
    for row in rows.iter().filter(|row| !row.blocks.is_empty()) {
        let count = u32::try_from(row.blocks.len()).unwrap_or(u32::MAX);
        if let Some(given) = given {
            if u64::from(given) * u64::from(count - 1) >= u64::from(row.input_tokens) {
                let problem = format!(
                    "hash_ids: {count} blocks of {given} tokens are more than the prompt of {}",
                    row.input_tokens
                );
                return Err(Error::Line { file: file.to_owned(), line: row.line, problem });
            }
            continue;
        }
        let row_max = if count > 1 { (row.input_tokens - 1) / (count - 1) } else { u32::MAX };
        min = min.max(row.input_tokens.div_ceil(count));
        max = max.min(row_max);
        if min > max {
            let problem = format!("hash_ids: no size of blocks fits this row of {count} and the rows before");
            return Err(Error::Line { file: file.to_owned(), line: row.line, problem });
        }
    }
    if !rows.iter().any(|row| !row.blocks.is_empty()) {
        return Ok(None);
    }
    if given.is_some() {
        return Ok(given);
    }
    let powers: Vec<u32> = (0..31).map(|power| 1 << power).filter(|size| (min..=max).contains(size)).collect();
    match powers[..] {
        _ if (min..=max).contains(&MOONCAKE_BLOCK_TOKENS) => Ok(Some(MOONCAKE_BLOCK_TOKENS)),
        [size] => Ok(Some(size)),
        _ => {
            let max = if max == u32::MAX { "any number".to_owned() } else { max.to_string() };
            let problem = format!("hash_ids may be blocks of {min} to {max} tokens: say how many (--block-tokens)");
            Err(Error::File { file: file.to_owned(), problem })
        }
    }
}
