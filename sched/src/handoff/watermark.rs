//! Parts of a prompt's KV that a giver has stored and that a reader has asked for; knows no lease and no block.

use std::ops::Range;

use crate::layout::TILE_TOKENS;

/// Stored part of a prompt: the first positions in every layer, and the chunk being computed in the first layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// Positions below this one are stored in every layer.
    pub tokens: u32,
    /// End of the chunk that is being computed; `tokens` if there is none.
    pub chunk_end: u32,
    /// Layers, from the first one, in which the positions below `chunk_end` are stored.
    pub layers: u32,
}

impl Watermark {
    /// Mark of so many positions in every layer.
    #[must_use]
    pub fn whole(tokens: u32) -> Watermark {
        Watermark { tokens, chunk_end: tokens, layers: 0 }
    }

    /// Returns the higher of two marks of one prompt, which may come in any order.
    #[must_use]
    pub fn max(self, other: Watermark) -> Watermark {
        let rank = |mark: Watermark| (mark.tokens, mark.layers);
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Part of a prompt's KV: some positions in some layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Positions, from the start of a tile.
    pub positions: Range<u32>,
    /// Layers.
    pub layers: Range<u32>,
}

/// Shape of the KV that is read.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Positions of the whole prompt.
    pub tokens: u32,
    /// Layers of the model.
    pub layers: u32,
    /// Most positions of one region, a multiple of 16: what a transport takes at a time.
    pub pull_tokens_max: u32,
}

/// Progress of a reader: it asks for every position in every layer once, in regions that begin at a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Positions below this one were asked for in every layer.
    tokens: u32,
    /// Positions from there up to `ahead_end` were asked for in the layers below `ahead_layers`.
    ahead_end: u32,
    ahead_layers: u32,
}

impl Asked {
    /// Begins after the first positions, which are here already.
    #[must_use]
    pub fn from(tokens: u32) -> Asked {
        Asked { tokens, ahead_end: 0, ahead_layers: 0 }
    }

    /// Asks for the next region that is stored; `None` if everything that is stored was asked for.
    pub fn next(&mut self, stored: Watermark, extent: Extent) -> Option<Region> {
        let bound = self.tokens.saturating_add(extent.pull_tokens_max);
        let whole_tiles = |end: u32| match end >= extent.tokens {
            true => extent.tokens.min(bound),
            false => (end - end % TILE_TOKENS).min(bound),
        };
        let whole = whole_tiles(stored.tokens);
        if self.ahead_layers > 0 && whole >= self.ahead_end {
            let region = Region { positions: self.tokens..self.ahead_end, layers: self.ahead_layers..extent.layers };
            *self = Asked::from(self.ahead_end);
            return Some(region).filter(|region| !region.layers.is_empty()).or_else(|| self.next(stored, extent));
        }
        if self.ahead_layers == 0 && whole > self.tokens {
            let region = Region { positions: self.tokens..whole, layers: 0..extent.layers };
            *self = Asked::from(whole);
            return Some(region);
        }
        let (ahead, layers) = (whole_tiles(stored.chunk_end), stored.layers.min(extent.layers));
        let goes_on = self.ahead_layers == 0 || ahead == self.ahead_end;
        if goes_on && ahead > self.tokens && layers > self.ahead_layers {
            let region = Region { positions: self.tokens..ahead, layers: self.ahead_layers..layers };
            (self.ahead_end, self.ahead_layers) = (ahead, layers);
            return Some(region);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXTENT: Extent = Extent { tokens: 100, layers: 4, pull_tokens_max: 1 << 20 };

    fn asked_for(asked: &mut Asked, stored: Watermark) -> Vec<(Range<u32>, Range<u32>)> {
        std::iter::from_fn(|| asked.next(stored, EXTENT)).map(|region| (region.positions, region.layers)).collect()
    }

    #[test]
    fn what_is_complete_is_asked_for_at_once() {
        let mut asked = Asked::from(32);
        assert_eq!(asked_for(&mut asked, Watermark::whole(100)), [(32..100, 0..4)]);
        assert_eq!(asked_for(&mut asked, Watermark::whole(100)), []);
        assert_eq!(asked_for(&mut Asked::from(100), Watermark::whole(100)), []);
    }

    #[test]
    fn chunks_are_asked_for_in_whole_tiles_and_the_last_one_in_groups_of_layers() {
        let mut asked = Asked::default();
        assert_eq!(asked_for(&mut asked, Watermark::whole(40)), [(0..32, 0..4)]);
        assert_eq!(asked_for(&mut asked, Watermark::whole(47)), []);
        let ahead = |layers| Watermark { tokens: 60, chunk_end: 100, layers };
        assert_eq!(asked_for(&mut asked, ahead(1)), [(32..48, 0..4), (48..100, 0..1)]);
        assert_eq!(asked_for(&mut asked, ahead(3)), [(48..100, 1..3)]);
        assert_eq!(asked_for(&mut asked, Watermark::whole(100)), [(48..100, 3..4)]);
    }

    #[test]
    fn no_region_is_longer_than_a_transport_takes() {
        let extent = Extent { pull_tokens_max: 48, ..EXTENT };
        let mut asked = Asked::default();
        let regions: Vec<_> = std::iter::from_fn(|| asked.next(Watermark::whole(100), extent)).collect();
        let positions: Vec<_> = regions.into_iter().map(|region| region.positions).collect();
        assert_eq!(positions, [0..48, 48..96, 96..100]);
    }

    /// A giver may say anything; what is asked for stays within the prompt.
    #[test]
    fn marks_beyond_the_prompt_ask_for_no_more_than_it_has() {
        let mut asked = Asked::default();
        let beyond = Watermark { tokens: 0, chunk_end: u32::MAX, layers: u32::MAX };
        assert_eq!(asked_for(&mut asked, beyond), [(0..100, 0..4)]);
        assert_eq!(asked_for(&mut asked, Watermark::whole(u32::MAX)), []);
    }

    proptest! {
        /// Every cell is asked for once and only when it is stored, whatever the reader is told of the prompt's growth.
        #[test]
        fn every_cell_is_asked_for_once_and_not_before_it_is_stored(
            chunks in prop::collection::vec(1_u32..50, 0..8),
            told in prop::collection::vec(any::<bool>(), 64),
            cached_tiles in 0_u32..7,
            pull_tokens_max in prop::sample::select(vec![16_u32, 32, 64, 1 << 20]),
        ) {
            let extent = Extent { pull_tokens_max, ..EXTENT };
            let cached = cached_tiles * TILE_TOKENS;
            let mut marks = vec![Watermark::default()];
            let mut tokens = 0;
            for chunk in chunks.into_iter().chain([100]) {
                if tokens == 100 {
                    break;
                }
                let chunk_end = (tokens + chunk).min(100);
                marks.extend((1..=4).map(|layers| Watermark { tokens, chunk_end, layers }));
                marks.push(Watermark::whole(chunk_end));
                tokens = chunk_end;
            }
            let mut cells = vec![[false; 4]; 100];
            cells[..cached as usize].fill([true; 4]);
            let mut asked = Asked::from(cached);
            let mut high = Watermark::default();
            let skipped = marks.iter().zip(told.iter().chain(std::iter::repeat(&true)));
            for mark in skipped.filter(|(_, told)| **told).map(|(mark, _)| *mark).chain([Watermark::whole(100)]) {
                prop_assert_eq!((high.max(mark), mark.max(high)), (mark, mark), "marks only rise");
                high = mark;
                while let Some(Region { positions, layers }) = asked.next(high, extent) {
                    prop_assert!(positions.start.is_multiple_of(TILE_TOKENS) && !positions.is_empty() && !layers.is_empty());
                    prop_assert!(positions.len() <= pull_tokens_max as usize);
                    for position in positions {
                        for layer in layers.clone() {
                            let stored = position < mark.tokens || (position < mark.chunk_end && layer < mark.layers);
                            prop_assert!(stored, "{position} of layer {layer} at {mark:?}");
                            let cell = &mut cells[position as usize][layer as usize];
                            prop_assert!(!std::mem::replace(cell, true), "{position} of layer {layer} twice");
                        }
                    }
                }
            }
            prop_assert!(cells.iter().flatten().all(|asked| *asked));
        }
    }
}
