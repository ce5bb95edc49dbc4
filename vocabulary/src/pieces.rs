//! Table from token to bytes, compiled once from the tokenizer's decoder; knows no stream and no request.

use std::collections::BTreeSet;

use sched::TokenId;
use serde::Deserialize;

use crate::VocabularyError as Error;

/// Largest token id of a vocabulary; a larger one means a broken file.
const TOKEN_ID_MAX: u32 = 1 << 24;

/// Largest number of bytes that a decoder may make of one token.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Table from token to bytes.
///
/// Every decoder of the supported model families maps each token to bytes without looking at its neighbours, joins
/// them, and reads the whole as UTF-8; only the start of a text is treated apart (`Lead`). So a table makes incremental
/// decoding linear and exact.
#[derive(Debug)]
pub struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    special: Vec<bool>,
    lead: Lead,
    /// Word mark, removed from the first token of a text (`Lead::DropMarks` only).
    marks: char,
}

/// Treatment of the start of a text by a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// Keeps it.
    Keep,
    /// Removes up to `count` leading `content` characters.
    Strip {
        /// Character to remove.
        content: char,
        /// Most characters to remove.
        count: usize,
    },
    /// Removes the word marks of the first token, which become spaces in later ones.
    DropMarks,
}

impl Pieces {
    /// Compiles the table.
    ///
    /// # Errors
    /// When the decoder does not map tokens to bytes one by one.
    pub fn compile(inner: &tokenizers::Tokenizer) -> Result<Pieces, Error> {
        let rules = Rules::of(inner)?;
        let special: BTreeSet<String> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(_, token)| token.content)
            .collect();
        let id_max = inner.get_vocab(true).into_values().max().unwrap_or(0);
        if id_max > TOKEN_ID_MAX {
            return Err(Error::Tokenizer(format!("token id {id_max} is above the limit of {TOKEN_ID_MAX}")));
        }
        let mut pieces =
            Pieces { bytes: Vec::new(), ends: Vec::new(), special: Vec::new(), lead: rules.lead, marks: rules.marks };
        for id in 0..=id_max {
            let token = inner.id_to_token(id);
            pieces.special.push(token.as_ref().is_some_and(|token| special.contains(token)));
            if let Some(token) = token {
                rules.append(&token, &mut pieces.bytes)?;
            }
            let end = u32::try_from(pieces.bytes.len())
                .map_err(|_| Error::Tokenizer("the vocabulary is larger than 4 GiB".to_owned()))?;
            pieces.ends.push(end);
        }
        Ok(pieces)
    }

    /// Returns the bytes of `token` inside a text; none for a token outside the vocabulary.
    #[must_use]
    pub fn bytes(&self, token: TokenId) -> &[u8] {
        let index = token.0 as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// Returns the number of bytes of all `tokens` together.
    #[must_use]
    pub fn text_bytes(&self, tokens: &[TokenId]) -> usize {
        tokens.iter().map(|token| self.bytes(*token).len()).sum()
    }

    /// Returns true if `token` is a control token, which does not show in text.
    #[must_use]
    pub fn is_special(&self, token: TokenId) -> bool {
        self.special.get(token.0 as usize).copied().unwrap_or(false)
    }

    /// Returns the number of tokens in the table; higher ids have no text.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true if the table has no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the treatment of the start of a text.
    #[must_use]
    pub fn lead(&self) -> Lead {
        self.lead
    }

    /// Returns the bytes of `token` as the first of a text under `Lead::DropMarks`.
    #[must_use]
    pub fn bytes_without_marks(&self, token: TokenId, inner: &tokenizers::Tokenizer) -> Vec<u8> {
        inner.id_to_token(token.0).map(|text| text.replace(self.marks, "").into_bytes()).unwrap_or_default()
    }
}

/// The decoder section of `tokenizer.json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
enum DecoderSpec {
    ByteLevel,
    ByteFallback,
    Fuse,
    Metaspace { replacement: char, prepend_scheme: PrependScheme },
    Replace { pattern: ReplacePattern, content: String },
    Strip { content: char, start: usize, stop: usize },
    Sequence { decoders: Vec<DecoderSpec> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrependScheme {
    First,
    Never,
    Always,
}

#[derive(Debug, Deserialize)]
enum ReplacePattern {
    String(String),
}

#[derive(Debug)]
enum Step {
    ByteLevel,
    ByteFallback,
    Replace { from: String, to: String },
    Prepend(&'static str),
}

/// Decoder, split into steps for each token and the treatment of the start of the text.
#[derive(Debug)]
struct Rules {
    steps: Vec<Step>,
    lead: Lead,
    marks: char,
}

impl Rules {
    fn of(inner: &tokenizers::Tokenizer) -> Result<Rules, Error> {
        let mut rules = Rules { steps: Vec::new(), lead: Lead::Keep, marks: '\0' };
        let Some(decoder) = inner.get_decoder() else {
            // Without a decoder, tokens are joined with single spaces.
            rules.steps.push(Step::Prepend(" "));
            rules.lead = Lead::Strip { content: ' ', count: 1 };
            return Ok(rules);
        };
        let spec: DecoderSpec = serde_json::to_value(decoder)
            .and_then(serde_json::from_value)
            .map_err(|error| Error::Tokenizer(format!("the decoder is not supported: {error}")))?;
        rules.add(spec)?;
        Ok(rules)
    }

    fn add(&mut self, spec: DecoderSpec) -> Result<(), Error> {
        match spec {
            DecoderSpec::ByteLevel => self.steps.push(Step::ByteLevel),
            DecoderSpec::ByteFallback => self.steps.push(Step::ByteFallback),
            DecoderSpec::Fuse => {}
            DecoderSpec::Metaspace { replacement, prepend_scheme } => {
                if prepend_scheme != PrependScheme::Never {
                    self.lead = Lead::DropMarks;
                    self.marks = replacement;
                }
                self.steps.push(Step::Replace { from: replacement.to_string(), to: " ".to_owned() });
            }
            DecoderSpec::Replace { pattern: ReplacePattern::String(from), content } => {
                self.steps.push(Step::Replace { from, to: content });
            }
            DecoderSpec::Strip { content, start, stop: 0 } => self.lead = Lead::Strip { content, count: start },
            DecoderSpec::Strip { .. } => {
                return Err(Error::Tokenizer("a decoder that strips the end of a text is not supported".to_owned()));
            }
            DecoderSpec::Sequence { decoders } => {
                for decoder in decoders {
                    self.add(decoder)?;
                }
            }
        }
        Ok(())
    }

    fn append(&self, token: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                Step::ByteLevel => {
                    match text.chars().map(byte_of_char).collect::<Option<Vec<u8>>>() {
                        Some(bytes) => out.extend(bytes),
                        None => out.extend(text.as_bytes()),
                    }
                    return Ok(());
                }
                Step::ByteFallback => {
                    if let Some(byte) = byte_of_fallback(&text) {
                        out.push(byte);
                        return Ok(());
                    }
                }
                Step::Replace { from, to } => text = replaced(&text, from, to)?,
                Step::Prepend(prefix) => text.insert_str(0, prefix),
            }
        }
        out.extend(text.as_bytes());
        Ok(())
    }
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let grown = text.matches(from).count().saturating_mul(to.len()).saturating_add(text.len());
    match grown > PIECE_BYTES_MAX.max(text.len()) {
        true => Err(Error::Tokenizer(format!("its decoder makes a token longer than {PIECE_BYTES_MAX} bytes"))),
        false => Ok(text.replace(from, to)),
    }
}

/// Returns the byte of a token like `<0x0A>`.
fn byte_of_fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Returns the byte of a character in the GPT-2 byte alphabet: printable Latin-1 stands for itself, the rest follows
/// from U+0100 on in order (Radford et al. 2019, byte-level BPE).
fn byte_of_char(c: char) -> Option<u8> {
    let stands_for_itself = |code: u32| matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(c);
    if stands_for_itself(code) {
        return u8::try_from(code).ok();
    }
    let nth = code.checked_sub(0x100)? as usize;
    (0..=u8::MAX).filter(|&byte| !stands_for_itself(u32::from(byte))).nth(nth)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        let bytes: BTreeSet<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of_char).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char(' '), None);
    }

    /// A tokenizer of whole words, whose first token is a control token.
    fn tokenizer(words: &[&str], decoder: &Value) -> tokenizers::Tokenizer {
        let vocab: serde_json::Map<String, Value> =
            words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
        let control = json!({"id": 0, "content": words[0], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [control],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": words[0]}});
        tokenizers::Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }

    fn texts(pieces: &Pieces) -> Vec<&[u8]> {
        (0..pieces.len() as u32).map(|id| pieces.bytes(TokenId(id))).collect()
    }

    #[test]
    fn tokens_of_bytes_and_word_marks_become_bytes() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]});
        let pieces = Pieces::compile(&tokenizer(&["<s>", "▁a▁b", "<0xC3>", "<0xg0>"], &decoder)).unwrap();
        assert_eq!(texts(&pieces), [b"<s>".as_slice(), b" a b", &[0xc3], b"<0xg0>"]);
        assert_eq!(pieces.lead(), Lead::Strip { content: ' ', count: 1 });
        assert!(pieces.is_special(TokenId(0)) && !pieces.is_special(TokenId(1)));
        assert_eq!(pieces.text_bytes(&[TokenId(1), TokenId(2)]), 5);
        assert!(pieces.bytes(TokenId(9)).is_empty() && !pieces.is_special(TokenId(9)), "beyond the vocabulary");
    }

    #[test]
    fn the_first_token_of_a_text_loses_its_word_marks() {
        let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let tokenizer = tokenizer(&["<s>", "▁a▁b"], &decoder);
        let pieces = Pieces::compile(&tokenizer).unwrap();
        assert_eq!((pieces.bytes(TokenId(1)), pieces.lead()), (b" a b".as_slice(), Lead::DropMarks));
        assert_eq!(pieces.bytes_without_marks(TokenId(1), &tokenizer), b"ab");
    }

    #[test]
    fn without_a_decoder_tokens_are_joined_with_spaces() {
        let pieces = Pieces::compile(&tokenizer(&["<s>", "a"], &Value::Null)).unwrap();
        assert_eq!(texts(&pieces), [b" <s>".as_slice(), b" a"]);
        assert_eq!(pieces.lead(), Lead::Strip { content: ' ', count: 1 });
    }

    #[test]
    fn a_decoder_that_looks_at_neighbours_is_refused() {
        let strip = json!({"type": "Strip", "content": " ", "start": 0, "stop": 1});
        for (decoder, said) in [
            (json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": true}), "not supported"),
            (strip, "end of a text"),
        ] {
            let error = Pieces::compile(&tokenizer(&["<s>"], &decoder)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let grows = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b".repeat(PIECE_BYTES_MAX)});
        let error = Pieces::compile(&tokenizer(&["<s>", "aa"], &grows)).unwrap_err().to_string();
        assert!(error.contains("longer than"), "{error}");
    }
}
