//! Parser of statements by Jinja's grammar with loop controls and `{% generation %}`; knows no value.

use std::sync::Arc;

use super::Error;
use super::ast::{Block, Expr, FilterCall, For, Macro, MacroUses, Node, Parameter, Statement, Step, Target};
use super::lexer::{Token, tokens};
use super::{filters, tests};

/// Deepest nesting of brackets and blocks.
const DEPTH_MAX: u32 = 100;

pub(super) fn parse(source: &str) -> Result<Block, Error> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        loops: 0,
        uses: MacroUses::default(),
        unknown: Vec::new(),
        unknown_fatal: None,
    };
    let body = parser.block(&[])?;
    match parser.unknown_fatal.or_else(|| parser.unknown.into_iter().next()) {
        Some(error) => Err(error),
        None => Ok(body),
    }
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: u32,
    /// Loops around this place that `break` can leave.
    loops: u32,
    /// Special names that the macro around this place reads.
    pub(super) uses: MacroUses,
    /// Unknown filters and tests, which are allowed inside conditions as long as they are not reached.
    unknown: Vec<Error>,
    unknown_fatal: Option<Error>,
}

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    pub(super) fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::Syntax { message: message.into(), line: self.line() })
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Result<(), Error> {
        if self.skip_operator(operator) { Ok(()) } else { self.expected(&format!("'{operator}'")) }
    }

    pub(super) fn expect_name(&mut self) -> Result<String, Error> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.skip();
                Ok(name)
            }
            _ => self.expected("name"),
        }
    }

    fn expect(&mut self, token: &Token) -> Result<(), Error> {
        if self.peek() == token {
            self.skip();
            return Ok(());
        }
        self.expected(&describe(token))
    }

    pub(super) fn expected<T>(&self, what: &str) -> Result<T, Error> {
        self.fail(format!("expected token {what}, got {}", describe(self.peek())))
    }

    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(format!("more than {DEPTH_MAX} levels of brackets and blocks"));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    pub(super) fn check_filter(&mut self, name: &str) {
        if !filters::exists(name) {
            let message = format!("No filter named '{name}'.");
            self.unknown.push(Error::Syntax { message, line: self.line() });
        }
    }

    pub(super) fn check_test(&mut self, name: &str) {
        if !tests::exists(name) {
            let message = format!("No test named '{name}'.");
            self.unknown.push(Error::Syntax { message, line: self.line() });
        }
    }

    /// Marks where unknown filters and tests begin that a condition may excuse.
    pub(super) fn unknown_mark(&self) -> usize {
        self.unknown.len()
    }

    pub(super) fn excuse_unknown(&mut self, mark: usize) {
        self.unknown.truncate(mark);
    }

    /// Parses a part with its own scope, in which conditions around it excuse nothing.
    fn strict<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let mark = self.unknown.len();
        let parsed = parse(self)?;
        let first = self.unknown.drain(mark..).next();
        self.unknown_fatal = self.unknown_fatal.take().or(first);
        Ok(parsed)
    }

    /// Parses statements up to one of the tags `ends`, which is not consumed; without any, up to the end.
    fn block(&mut self, ends: &[&str]) -> Result<Block, Error> {
        let mut block = Vec::new();
        loop {
            let line = self.line();
            match self.peek() {
                Token::Data(data) => {
                    let what = Statement::Data(Arc::from(data.as_str()));
                    self.skip();
                    block.push(Node { line, what });
                }
                Token::VariableBegin => {
                    self.skip();
                    let what = Statement::Print(vec![self.tuple()?]);
                    self.expect(&Token::VariableEnd)?;
                    block.push(Node { line, what });
                }
                Token::BlockBegin => {
                    self.skip();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(block);
                    }
                    let what = self.nested(|parser| parser.statement(ends))?;
                    self.expect(&Token::BlockEnd)?;
                    block.push(Node { line, what });
                }
                _ if ends.is_empty() => return Ok(block),
                _ => {
                    let message = format!("unexpected end of the template, expected {}", ends.join(" or "));
                    return self.fail(message);
                }
            }
        }
    }

    /// Parses the body of a tag up to one of `ends`, and leaves that tag's end.
    fn body(&mut self, ends: &[&str]) -> Result<Block, Error> {
        self.skip_operator(":");
        self.expect(&Token::BlockEnd)?;
        self.block(ends)
    }

    /// Parses a body up to `end`, which is consumed.
    fn whole_body(&mut self, end: &str) -> Result<Block, Error> {
        let body = self.body(&[end])?;
        self.skip();
        Ok(body)
    }

    fn statement(&mut self, ends: &[&str]) -> Result<Statement, Error> {
        let Token::Name(tag) = self.peek() else { return self.fail("tag name expected") };
        let tag = tag.clone();
        self.skip();
        match tag.as_str() {
            "if" => self.if_statement(),
            "for" => self.strict(Parser::for_statement),
            "set" => self.set(),
            "macro" => self.strict(Parser::macro_statement),
            "call" => self.strict(Parser::call),
            "with" => self.strict(Parser::with),
            "print" => self.print(),
            "filter" => self.strict(|parser| {
                let first = parser.filter_call()?;
                let filters = parser.filter_calls(vec![first])?;
                Ok(Statement::FilterBlock(filters, parser.apart("endfilter")?))
            }),
            "autoescape" => {
                self.expression()?;
                Ok(Statement::Scope(self.apart("endautoescape")?))
            }
            "generation" => self.strict(|parser| Ok(Statement::Scope(parser.apart("endgeneration")?))),
            "block" => self.strict(Parser::named_block),
            "break" | "continue" if self.loops == 0 => self.fail(format!("'{tag}' outside loop")),
            "break" => Ok(Statement::Break),
            "continue" => Ok(Statement::Continue),
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.skip();
                }
                Ok(Statement::Foreign)
            }
            _ => {
                self.at -= 1;
                let looking = if ends.is_empty() { String::new() } else { format!(", expected {}", ends.join(" or ")) };
                self.fail(format!("Encountered unknown tag '{tag}'{looking}."))
            }
        }
    }

    /// Parses a body that no `break` inside can leave.
    fn apart(&mut self, end: &str) -> Result<Block, Error> {
        let loops = std::mem::take(&mut self.loops);
        let body = self.whole_body(end);
        self.loops = loops;
        body
    }

    fn if_statement(&mut self) -> Result<Statement, Error> {
        let mark = self.unknown_mark();
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple_of(&[], Parser::or)?;
            branches.push((condition, self.body(&["elif", "else", "endif"])?));
            if !self.skip_name("elif") {
                break;
            }
        }
        let otherwise = if self.skip_name("else") { self.body(&["endif"])? } else { Vec::new() };
        self.skip();
        self.excuse_unknown(mark);
        Ok(Statement::If(branches, otherwise))
    }

    fn for_statement(&mut self) -> Result<Statement, Error> {
        let target = self.target(&["in"])?;
        if !self.skip_name("in") {
            return self.expected("'in'");
        }
        let over = self.tuple_of(&["recursive"], Parser::or)?;
        let condition = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let body = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = if self.skip_name("else") { self.body(&["endfor"])? } else { Vec::new() };
        self.skip();
        Ok(Statement::For(Arc::new(For { target, over, condition, body, otherwise, recursive })))
    }

    fn set(&mut self) -> Result<Statement, Error> {
        let target = self.target(&[])?;
        if self.skip_operator("=") {
            return Ok(Statement::Set(target, self.tuple()?));
        }
        let filters = self.filter_calls(Vec::new())?;
        let body = self.strict(|parser| parser.apart("endset"))?;
        Ok(Statement::SetBlock(target, filters, body))
    }

    fn with(&mut self) -> Result<Statement, Error> {
        let mut bindings = Vec::new();
        while *self.peek() != Token::BlockEnd {
            if !bindings.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(&[])?;
            self.expect_operator("=")?;
            bindings.push((target, self.expression()?));
        }
        Ok(Statement::With(bindings, self.whole_body("endwith")?))
    }

    fn print(&mut self) -> Result<Statement, Error> {
        let mut values = Vec::new();
        while *self.peek() != Token::BlockEnd {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            values.push(self.expression()?);
        }
        Ok(Statement::Print(values))
    }

    fn named_block(&mut self) -> Result<Statement, Error> {
        let name = self.expect_name()?;
        self.skip_name("scoped");
        self.skip_name("required");
        let body = self.apart("endblock")?;
        self.skip_name(&name);
        Ok(Statement::NamedBlock(body))
    }

    fn macro_statement(&mut self) -> Result<Statement, Error> {
        let name = Arc::from(self.expect_name()?);
        let parameters = self.signature()?;
        Ok(Statement::Macro(Arc::new(self.macro_body(name, parameters, "endmacro")?)))
    }

    fn call(&mut self) -> Result<Statement, Error> {
        let parameters = if self.is_operator("(") { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(&call, Expr::Steps(_, steps) if matches!(steps.last(), Some(Step::Call(_)))) {
            return self.fail("expected call");
        }
        let block = self.macro_body(Arc::from("caller"), parameters, "endcall")?;
        Ok(Statement::Call(call, Arc::new(block)))
    }

    fn macro_body(&mut self, name: Arc<str>, parameters: Vec<Parameter>, end: &str) -> Result<Macro, Error> {
        let outer = std::mem::take(&mut self.uses);
        let body = self.apart(end)?;
        let uses = std::mem::replace(&mut self.uses, outer);
        Ok(Macro { name, parameters, body, uses })
    }

    fn signature(&mut self) -> Result<Vec<Parameter>, Error> {
        self.expect_operator("(")?;
        let mut parameters: Vec<Parameter> = Vec::new();
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = Arc::from(self.expect_name()?);
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("non-default argument follows default argument");
            }
            parameters.push((name, default));
        }
        self.skip();
        Ok(parameters)
    }

    /// Parses filters with their bars, after `calls`.
    fn filter_calls(&mut self, mut calls: Vec<FilterCall>) -> Result<Vec<FilterCall>, Error> {
        while self.skip_operator("|") {
            calls.push(self.filter_call()?);
        }
        Ok(calls)
    }

    /// Parses a target of an assignment: a name, an attribute of a namespace, or several.
    fn target(&mut self, ends: &[&str]) -> Result<Target, Error> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = matches!(self.peek(), Token::BlockEnd | Token::VariableEnd)
                || self.is_operator(")")
                || ends.iter().any(|end| self.is_name(end));
            if at_end {
                break;
            }
            targets.push(self.nested(Parser::single_target)?);
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match (is_tuple, targets.pop()) {
            (false, Some(only)) => Ok(only),
            (_, None) => self.expected("name"),
            (true, Some(last)) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn single_target(&mut self) -> Result<Target, Error> {
        if self.skip_operator("(") {
            let target = self.target(&[])?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
            return self.fail("can't assign to 'const'");
        }
        if self.skip_operator(".") {
            return Ok(Target::Attribute(Arc::from(name), Arc::from(self.expect_name()?)));
        }
        Ok(Target::Name(Arc::from(name)))
    }
}

pub(super) fn describe(token: &Token) -> String {
    match token {
        Token::Data(_) => "template data / text".to_owned(),
        Token::BlockBegin => "begin of statement block".to_owned(),
        Token::BlockEnd => "end of statement block".to_owned(),
        Token::VariableBegin => "begin of print statement".to_owned(),
        Token::VariableEnd => "end of print statement".to_owned(),
        Token::Name(name) => format!("'{name}'"),
        Token::Str(_) => "string".to_owned(),
        Token::Int(_) => "integer".to_owned(),
        Token::Float(_) => "float".to_owned(),
        Token::Operator(operator) => format!("'{operator}'"),
        Token::End => "end of template".to_owned(),
    }
}
