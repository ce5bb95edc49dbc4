//! Tests of the table from tokens to bytes, on tokenizers of each family.

use sched::TokenId;

use super::{Tokenizer, samples};

#[test]
fn pieces_of_both_families() {
    let byte_level = samples::byte_level();
    let pieces = byte_level.pieces();
    assert_eq!(pieces.bytes(byte_level.id("Ġworld")), b" world");
    assert!(pieces.is_special(byte_level.id("<|end|>")));
    assert_eq!(pieces.bytes(TokenId(9_999_999)), b"");

    let sentencepiece = samples::sentencepiece();
    assert_eq!(sentencepiece.pieces().bytes(sentencepiece.id("▁world")), b" world");
    assert_eq!(sentencepiece.pieces().bytes(sentencepiece.id("<0xE2>")), b"\xe2");
}

#[test]
fn an_unsupported_decoder_is_named() {
    let mut json = samples::byte_level_json();
    json["decoder"] = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let error = Tokenizer::from_json(json.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("WordPiece"), "{error}");
}
