//! Checks the header of a safetensors file; unlike its parser, errors name the tensor.

use safetensors::Dtype;
use serde_json::{Map, Value};

/// Most tensors of one file; published models have some thousands per file, however large they are.
const TENSORS_MAX: usize = 1 << 16;

/// Checks a file's length against its header, and each tensor's type, shape and offsets against each other.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let (header, data_bytes) = split(bytes)?;
    if header.len() > TENSORS_MAX {
        return Err(format!("has {} tensors, at most {TENSORS_MAX} are read from one file", header.len()));
    }
    let tensors = || header.iter().filter(|(name, _)| *name != "__metadata__");
    let mut end = 0;
    for (name, entry) in tensors() {
        end = end.max(end_of(entry).map_err(|problem| format!("tensor {name} {problem}"))?);
    }
    if data_bytes < end {
        return Err(format!("is truncated: its tensors need {end} bytes, {} are missing", end - data_bytes));
    }
    Ok(())
}

/// Parses the header; also returns how many bytes follow it.
fn split(bytes: &[u8]) -> Result<(Map<String, Value>, u64), String> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("is {} bytes long, a safetensors file has at least 8", bytes.len()));
    };
    let header_bytes = u64::from_le_bytes(*prefix);
    let Some(header) = usize::try_from(header_bytes).ok().and_then(|len| rest.get(..len)) else {
        return Err(format!(
            "its header should have {header_bytes} bytes, the file has {} after the prefix",
            rest.len()
        ));
    };
    let tensors = model_files::object_of(header).map_err(|problem| format!("its header {problem}"))?;
    Ok((tensors, (rest.len() - header.len()) as u64))
}

/// End offset of a tensor in the data, if its entry is consistent.
fn end_of(entry: &Value) -> Result<u64, String> {
    let lacks = |key: &str| format!("has no {key} that can be read");
    let dtype = entry.get("dtype").and_then(Value::as_str).ok_or_else(|| lacks("dtype"))?;
    let numbers = |key: &str| {
        let list = entry.get(key).and_then(Value::as_array)?;
        list.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>()
    };
    let shape = numbers("shape").ok_or_else(|| lacks("shape"))?;
    let offsets = numbers("data_offsets").ok_or_else(|| lacks("data_offsets"))?;
    let [start, end] = offsets[..] else { return Err(lacks("data_offsets")) };
    let known: Dtype =
        serde_json::from_value(Value::from(dtype)).map_err(|_| format!("is {dtype}, an unknown type"))?;
    let elements = shape.iter().try_fold(1_u64, |product, length| product.checked_mul(*length));
    let expected = elements.and_then(|elements| elements.checked_mul(known.bitsize() as u64)).map(|bits| bits / 8);
    match (expected, end.checked_sub(start)) {
        (Some(expected), Some(found)) if expected == found => Ok(end),
        (Some(expected), Some(found)) => {
            Err(format!("is {dtype} of shape {shape:?}, which takes {expected} bytes; the file has {found}"))
        }
        (_, None) => Err(format!("ends at {end}, before it begins at {start}")),
        (None, _) => Err(format!("is {dtype} of shape {shape:?}, which is too large for any file")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(tensor: &Value, data: usize) -> String {
        let header =
            json!({"__metadata__": {"format": "pt"}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                            "b.weight": tensor})
            .to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
        check(&bytes).err().unwrap_or_else(|| "no error".to_owned())
    }

    #[test]
    fn so_many_tensors_are_no_model() {
        let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        let entries: Vec<String> = (0..=TENSORS_MAX).map(|number| format!("\"{number}\":{entry}")).collect();
        let header = format!("{{{}}}", entries.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        assert!(check(&bytes).unwrap_err().contains("at most 65536 are read"));
    }

    #[test]
    fn a_tensor_that_is_named_twice_is_refused() {
        let entry = r#"{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}"#;
        let header = format!(r#"{{"a": {entry}, "a": {entry}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat();
        let refused = check(&bytes).unwrap_err();
        assert!(refused.starts_with("its header is not valid JSON: a occurs twice"), "{refused}");
    }

    #[test]
    fn every_contradiction_names_its_tensor() {
        let tensor = |dtype: &str, shape: Value, offsets: Value| json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        let cases = [
            (tensor("F32", json!([2, 3]), json!([1, 25])), 25, "no error"),
            (
                tensor("F32", json!([2, 3]), json!([1, 25])),
                20,
                "is truncated: its tensors need 25 bytes, 5 are missing",
            ),
            (
                tensor("BF16", json!([2, 3]), json!([1, 25])),
                25,
                "tensor b.weight is BF16 of shape [2, 3], which takes 12 bytes; the file has 24",
            ),
            (
                tensor("F32", json!([2, 4]), json!([1, 25])),
                25,
                "tensor b.weight is F32 of shape [2, 4], which takes 32 bytes; the file has 24",
            ),
            (
                tensor("F32", json!([u64::MAX, 2]), json!([1, 25])),
                25,
                "tensor b.weight is F32 of shape [18446744073709551615, 2], which is too large for any file",
            ),
            (tensor("F32", json!([1]), json!([5, 1])), 25, "tensor b.weight ends at 1, before it begins at 5"),
            (tensor("Q4", json!([1]), json!([1, 5])), 25, "tensor b.weight is Q4, an unknown type"),
            (tensor("F32", json!([-1]), json!([1, 5])), 25, "tensor b.weight has no shape that can be read"),
            (tensor("F32", json!([1]), json!([1])), 25, "tensor b.weight has no data_offsets that can be read"),
            (tensor("F32", json!([1]), json!("all")), 25, "tensor b.weight has no data_offsets that can be read"),
            (json!({"shape": [1]}), 25, "tensor b.weight has no dtype that can be read"),
            (json!(7), 25, "tensor b.weight has no dtype that can be read"),
        ];
        for (tensor, data, expected) in cases {
            assert_eq!(checked(&tensor, data), expected, "{tensor}");
        }
    }
}
