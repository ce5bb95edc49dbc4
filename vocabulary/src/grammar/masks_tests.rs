//! Our masks beside those of the library's own walk through the vocabulary.

use llguidance::api::{GrammarInit, TopLevelGrammar};

use super::tests::{Vocabulary, vocabulary};
use super::*;

const SCHEMA: &str = r#"{"type": "object", "properties": {"a": {"type": "string", "maxLength": 6}, "b": {"type": "array", "items": {"type": "number"}}, "c": {"enum": ["the", "their", "then"]}}, "required": ["a", "b"]}"#;
const SUM: &str = r#"start: (expr "=" ws term "\n")+
expr: term (/[-+*\/]/ term)*
term: ident | num | "(" ws expr ")" ws
ident: /[a-z][a-z0-9_]*/ ws
num: /[0-9]+/ ws
ws: /[ \t\n]/*"#;
const QUERY: &str = r#"start: "SELECT " name (", " name)* " FROM " name (" WHERE " name " = " value)? ";"
value: /[0-9]+/ | "'" /[^']*/ "'"
name: /[a-z_]+/ ("." /[a-z_]+/)?"#;
/// Words that end as soon as they can, and some of whose last characters are read again.
const ENDINGS: &str = r#"start: (short | stopped | suffixed | ahead)+
short[lazy]: /[a-z ]*[aeiou]/
stopped[stop="is"]: /[A-Z][a-z ]*/
suffixed[suffix=/[sn]t/]: /-[a-z ]*/
ahead[stop=/[0-9]+x/]: /=[a-z]*/"#;
/// What is read again has to be "er", although "or" ends the word too.
const HIDDEN: &str = r#"start: (text "er" /[A-Z ]?/)+
text[stop=/[aeiou]r/]: /[a-z ]*/"#;
const SKIPPED: &str = r#"start: (NAME "=" NUMBER ";")*
NAME: /[a-z]+/
NUMBER: /[0-9]+(\.[0-9]+)?/
%ignore /[ \n]+/"#;
const MARKED: &str = r"start: (/[^<]+/ | <|im_start|> /[a-z]+/ <|im_end|>)*";
const BOUNDED: &str = r"start: /[^<]{0,9}/ /<[a-zA-Z0-9]{1,12}>/ /(?s:.){0,30}/";
/// What is read again may begin before the place where the second word of a token goes on: "th" of " th", beside " to".
const HIDDEN_SECOND: &str = r#"start: (/ +/ (text "th" | "to"))+
text[stop="th"]: /s?/"#;

/// What happens before each mask to what is known.
#[derive(Clone, Copy)]
enum Known {
    Kept,
    Forgotten,
}

/// Texts of a grammar, each token by chance, beside a matcher that computes its masks by the library's walk. Every other
/// text begins with what those before it have taught.
fn compare(vocabulary: &Vocabulary, grammar: &str, known: Known) {
    let grammars = &vocabulary.grammars;
    let mut chance: u64 = 7;
    let mut ours = grammars.compile(grammar).unwrap();
    for text in 0..8 {
        let init = GrammarInit::Serialized(TopLevelGrammar::from_lark(grammar.to_owned()));
        let parser = grammars.factory.create_parser_from_init(init, 0, 0).unwrap();
        let mut library = llguidance::Matcher::new(Ok(parser));
        let mut matcher = ours.fresh();
        let mut said = Vec::new();
        for _ in 0..24 {
            match known {
                Known::Kept => {}
                Known::Forgotten => matcher.masks.forget(),
            }
            let mask = matcher.mask().unwrap();
            let expected = library.compute_mask_or_eos().unwrap();
            let differ =
                (0..=grammars.end).filter(|token| mask.tokens.is_allowed(*token) != expected.is_allowed(*token));
            assert_eq!(differ.collect::<Vec<_>>(), [0; 0], "{grammar}, text {text}, after {said:?}");
            let allowed: Vec<u32> = (0..grammars.end).filter(|token| expected.is_allowed(*token)).collect();
            if allowed.is_empty() {
                break;
            }
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let token = allowed[(chance >> 33) as usize % allowed.len()];
            said.push(token);
            // Where what was hidden would have to be taken back, neither goes on.
            let goes_on = library.consume_token(token).is_ok();
            assert_eq!(matcher.push(TokenId(token)).is_ok(), goes_on);
            if !goes_on {
                break;
            }
        }
        if matcher.knows_more_than(&ours) {
            ours = matcher.into_start();
        }
    }
}

#[test]
fn masks_are_those_of_a_walk_through_the_vocabulary() {
    let vocabulary = vocabulary();
    let schema = format!("start: %json {SCHEMA}");
    for grammar in [SUM, QUERY, ENDINGS, SKIPPED, MARKED, BOUNDED, &schema] {
        compare(&vocabulary, grammar, Known::Kept);
    }
}

#[test]
fn masks_are_the_same_where_nothing_is_known() {
    let vocabulary = vocabulary();
    for grammar in [SUM, ENDINGS, BOUNDED] {
        compare(&vocabulary, grammar, Known::Forgotten);
    }
}

#[test]
fn what_one_text_has_seen_another_does_not_look_at_again() {
    let vocabulary = vocabulary();
    let start = vocabulary.grammars.compile(SUM).unwrap();
    let text: Vec<TokenId> = "a1 *(b +2)= c\n".chars().map(|c| vocabulary.token(&c.to_string())).collect();
    let follow = |matcher: &mut Matcher| {
        for token in &text {
            matcher.push(*token).unwrap();
            matcher.mask().unwrap();
        }
    };
    let mut first = start.fresh();
    follow(&mut first);
    assert!(first.masks.states() > start.masks.states() && first.masks.bytes() > start.masks.bytes());
    let mut second = first.fresh();
    follow(&mut second);
    assert_eq!((second.masks.states(), second.masks.bytes()), (first.masks.states(), first.masks.bytes()));
}

/// The library's own walk is no measure here: it does not go back from such an end to where it was, and then refuses
/// tokens that it accepts. Later in such a text the library itself may fail.
#[test]
fn what_a_word_hides_counts_byte_by_byte() {
    let vocabulary = vocabulary();
    for grammar in [HIDDEN, HIDDEN_SECOND] {
        let mut matcher = vocabulary.grammars.compile(grammar).unwrap();
        let mask = matcher.mask().unwrap();
        let tokens = (0..vocabulary.grammars.end).map(TokenId);
        let differ: Vec<_> = tokens.filter(|token| mask.allows(*token) != matcher.accepts(*token).unwrap()).collect();
        assert_eq!(differ, [], "{grammar}");
    }
}

#[test]
fn a_matcher_whose_lexer_is_lost_can_be_asked_what_it_takes() {
    let vocabulary = vocabulary();
    let start = vocabulary.grammars.compile(SUM).unwrap();
    let mut matcher = start.fresh();
    matcher.inner.test_trigger_lexer_error().unwrap_err();
    assert_eq!(matcher.lexer_bytes(), matcher.masks.bytes());
    assert!(!matcher.knows_more_than(&start));
}
