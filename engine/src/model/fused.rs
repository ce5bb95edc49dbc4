//! Splits experts stored as one tensor per layer into one matrix per expert; knows no architecture.
//!
//! Since version 5 transformers may write `….experts.gate_up_proj` `[experts, 2 * width, hidden]` and
//! `….experts.down_proj` `[experts, hidden, width]`. Their parts get the names of separate experts,
//! `….experts.N.gate_proj.weight` and so on, so that both forms are one model with one digest.

use std::collections::BTreeMap;

use super::entry::Entry;

/// More than any published model has; a bound, because a header may claim anything.
const EXPERTS_MAX: usize = 4096;
const GATE_UP: &str = ".experts.gate_up_proj";
const DOWN: &str = ".experts.down_proj";

/// Replaces entries of fused experts by entries of single experts.
pub(super) fn take_apart(entries: &mut BTreeMap<String, Entry>) {
    let fused = |name: &String| name.ends_with(GATE_UP) || name.ends_with(DOWN);
    let names: Vec<String> = entries.keys().filter(|name| fused(name)).cloned().collect();
    for name in names {
        let parts = entries.get(&name).map(|entry| parts(&name, entry));
        if let Some(parts) = parts.filter(|parts| !parts.is_empty()) {
            entries.remove(&name);
            entries.extend(parts);
        }
    }
}

/// Matrices in the tensor `name`; none if its shape is not one of experts.
fn parts(name: &str, entry: &Entry) -> Vec<(String, Entry)> {
    let (prefix, kinds) = match (name.strip_suffix(GATE_UP), name.strip_suffix(DOWN)) {
        (Some(prefix), _) => (prefix, ["gate_proj", "up_proj"].as_slice()),
        (None, Some(prefix)) => (prefix, ["down_proj"].as_slice()),
        (None, None) => return Vec::new(),
    };
    let &[experts, n, k] = entry.shape.as_slice() else { return Vec::new() };
    let is_shape_of_experts = (1..=EXPERTS_MAX).contains(&experts) && n.is_multiple_of(kinds.len()) && entry.len > 0;
    if !is_shape_of_experts {
        return Vec::new();
    }
    let len = entry.len / (experts * kinds.len());
    let indices = (0..experts).flat_map(|expert| kinds.iter().map(move |kind| (expert, kind)));
    let parts = indices.enumerate().map(|(index, (expert, kind))| {
        let part = Entry { start: entry.start + index * len, len, shape: vec![n / kinds.len(), k], ..entry.clone() };
        (format!("{prefix}.experts.{expert}.{kind}.weight"), part)
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(shape: &[usize]) -> Entry {
        let len = shape.iter().product::<usize>() * 4;
        Entry { file: 3, start: 1000, len, shape: shape.to_vec(), dtype: safetensors::Dtype::F32 }
    }

    #[test]
    fn fused_experts_are_taken_apart() {
        let mut entries = BTreeMap::from([
            ("model.layers.4.mlp.experts.gate_up_proj".to_owned(), entry(&[2, 6, 5])),
            ("model.layers.4.mlp.experts.down_proj".to_owned(), entry(&[2, 5, 3])),
            ("model.layers.4.mlp.gate.weight".to_owned(), entry(&[2, 5])),
        ]);
        take_apart(&mut entries);
        let found: Vec<(&str, usize, &[usize])> =
            entries.iter().map(|(name, entry)| (name.as_str(), entry.start, entry.shape.as_slice())).collect();
        assert_eq!(
            found,
            [
                ("model.layers.4.mlp.experts.0.down_proj.weight", 1000, &[5, 3][..]),
                ("model.layers.4.mlp.experts.0.gate_proj.weight", 1000, &[3, 5]),
                ("model.layers.4.mlp.experts.0.up_proj.weight", 1060, &[3, 5]),
                ("model.layers.4.mlp.experts.1.down_proj.weight", 1060, &[5, 3]),
                ("model.layers.4.mlp.experts.1.gate_proj.weight", 1120, &[3, 5]),
                ("model.layers.4.mlp.experts.1.up_proj.weight", 1180, &[3, 5]),
                ("model.layers.4.mlp.gate.weight", 1000, &[2, 5]),
            ]
        );
        assert!(entries.values().all(|entry| entry.len == entry.shape.iter().product::<usize>() * 4));
    }

    #[test]
    fn other_shapes_stay_as_they_are() {
        for shape in [&[6, 5][..], &[0, 6, 5], &[2, 7, 5], &[1 << 60, 0, 1], &[5000, 2, 1]] {
            let name = "model.layers.0.mlp.experts.gate_up_proj".to_owned();
            let mut entries = BTreeMap::from([(name.clone(), entry(shape))]);
            take_apart(&mut entries);
            assert!(entries.contains_key(&name) && entries.len() == 1, "{shape:?}");
        }
    }
}
