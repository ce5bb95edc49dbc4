//! Text form of decisions in scripts.

use super::script::{LAYERS, list};
use crate::handoff::Watermark;
use crate::{Choice, FinishReason, Input, StepPlan, TokenId};

pub(super) fn show_mark(Watermark { tokens, chunk_end, layers }: Watermark) -> String {
    match layers {
        0 => format!("filled {tokens}"),
        _ => format!("filled {tokens} and {layers} layers up to {chunk_end}"),
    }
}

/// `+slot1 copy b1>b2 | 0..20 @b0,b1 → slot1 | 33 ← slot2 @b4,b5,b6 → slot2`, with the layers unless all run.
pub(super) fn show_plan(plan: &StepPlan) -> String {
    let mut effects: Vec<String> = Vec::new();
    effects.extend(plan.admit.iter().map(|init| format!("+{}", init.slot)));
    effects.extend(plan.copies.iter().map(|copy| format!("copy {}>{}", copy.from, copy.to)));
    let mut parts = if effects.is_empty() { Vec::new() } else { vec![effects.join(" ")] };
    if plan.layers != (0..LAYERS) {
        parts.push(format!("layers {}..{}", plan.layers.start, plan.layers.end));
    }
    for rows in &plan.sequences {
        let blocks = &plan.blocks[rows.blocks.start as usize..rows.blocks.end as usize];
        let (start, end) = (rows.first_position, rows.first_position + rows.rows.len() as u32);
        let positions = if end == start + 1 { start.to_string() } else { format!("{start}..{end}") };
        let of_rows = plan.sample.iter().filter(|sample| rows.rows.contains(&sample.row));
        let slots: Vec<_> = of_rows.map(|sample| sample.slot.to_string()).collect();
        let samples = if slots.is_empty() { String::new() } else { format!(" → {}", slots.join(",")) };
        let input = match rows.input {
            Input::Given => String::new(),
            Input::FromSlot(slot) => format!(" ← {slot}"),
        };
        parts.push(format!("{positions}{input} @{}{samples}", list(blocks)));
    }
    parts.join(" | ")
}

pub(super) fn show_token(choice: Choice, index: Option<u32>, token: TokenId, ended: Option<FinishReason>) -> String {
    let index = index.map(|index| format!("#{index}")).unwrap_or_default();
    let ended = ended.map(|reason| format!(" {reason:?}")).unwrap_or_default();
    format!("{choice}{index}={token}{ended}")
}
