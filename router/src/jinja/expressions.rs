//! Parser of expressions by Jinja's grammar; knows no value.

use std::sync::Arc;

use super::Error;
use super::ast::{Arguments, Comparison, Expr, FilterCall, Operator, Step};
use super::lexer::Token;
use super::parser::{Parser, describe};

impl Parser {
    /// Parses an expression, or a tuple of several with commas.
    pub(super) fn tuple(&mut self) -> Result<Expr, Error> {
        self.tuple_of(&[], Parser::expression)
    }

    /// Parses a tuple whose items `item` parses, up to one of the names `ends`.
    pub(super) fn tuple_of(
        &mut self,
        ends: &[&str],
        item: fn(&mut Parser) -> Result<Expr, Error>,
    ) -> Result<Expr, Error> {
        let (mut items, is_tuple) = self.tuple_items(ends, item)?;
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Expr::Tuple(items))
            }
            None => self.fail(format!("Expected an expression, got {}", describe(self.peek()))),
        }
    }

    fn tuple_items(
        &mut self,
        ends: &[&str],
        item: fn(&mut Parser) -> Result<Expr, Error>,
    ) -> Result<(Vec<Expr>, bool), Error> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = matches!(self.peek(), Token::BlockEnd | Token::VariableEnd)
                || self.is_operator(")")
                || ends.iter().any(|end| self.is_name(end));
            if at_end {
                break;
            }
            items.push(item(self)?);
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        Ok((items, is_tuple))
    }

    /// Parses an expression with conditions: `a if b else c`.
    pub(super) fn expression(&mut self) -> Result<Expr, Error> {
        self.nested(|parser| {
            let mark = parser.unknown_mark();
            let mut value = parser.or()?;
            let mut choices = 0;
            while parser.skip_name("if") {
                choices += 1;
                if choices > 50 {
                    return parser.fail("more than 50 conditions in one expression");
                }
                let condition = parser.or()?;
                let otherwise = if parser.skip_name("else") { Some(Box::new(parser.expression()?)) } else { None };
                value = Expr::Choice(Box::new([value, condition]), otherwise);
                parser.excuse_unknown(mark);
            }
            Ok(value)
        })
    }

    /// Parses operands with `word` between them.
    fn words(&mut self, word: &str, operand: fn(&mut Parser) -> Result<Expr, Error>) -> Result<Vec<Expr>, Error> {
        let mut operands = vec![operand(self)?];
        while self.skip_name(word) {
            operands.push(operand(self)?);
        }
        Ok(operands)
    }

    pub(super) fn or(&mut self) -> Result<Expr, Error> {
        let operands = self.words("or", Parser::and)?;
        Ok(alone(operands, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, Error> {
        let operands = self.words("and", Parser::not)?;
        Ok(alone(operands, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, Error> {
        if self.skip_name("not") {
            return self.nested(|parser| Ok(Expr::Not(Box::new(parser.not()?))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr, Error> {
        let first = self.sum()?;
        let mut comparisons = Vec::new();
        while let Some(comparison) = self.comparison() {
            comparisons.push((comparison, self.sum()?));
        }
        Ok(if comparisons.is_empty() { first } else { Expr::Compare(Box::new(first), comparisons) })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let comparison = match self.peek() {
            Token::Operator("==") => Comparison::Equal,
            Token::Operator("!=") => Comparison::NotEqual,
            Token::Operator("<") => Comparison::Less,
            Token::Operator("<=") => Comparison::LessEqual,
            Token::Operator(">") => Comparison::Greater,
            Token::Operator(">=") => Comparison::GreaterEqual,
            Token::Name(name) if name == "in" => Comparison::In,
            Token::Name(name) if name == "not" => match self.peek_second() {
                Token::Name(second) if second == "in" => {
                    self.skip();
                    Comparison::NotIn
                }
                _ => return None,
            },
            _ => return None,
        };
        self.skip();
        Some(comparison)
    }

    /// Parses operands with operators of equal precedence between them.
    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Parser) -> Result<Expr, Error>,
    ) -> Result<Expr, Error> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.is_operator(sign)) {
            self.skip();
            rest.push((*operator, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Binary(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr, Error> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Sub)], Parser::concat)
    }

    fn concat(&mut self) -> Result<Expr, Error> {
        let mut operands = vec![self.product()?];
        while self.skip_operator("~") {
            operands.push(self.product()?);
        }
        Ok(alone(operands, Expr::Concat))
    }

    fn product(&mut self) -> Result<Expr, Error> {
        let operators = [("*", Operator::Mul), ("/", Operator::Div), ("//", Operator::FloorDiv), ("%", Operator::Mod)];
        self.chain(&operators, Parser::power)
    }

    fn power(&mut self) -> Result<Expr, Error> {
        self.chain(&[("**", Operator::Pow)], |parser| parser.unary(Filters::Apply))
    }

    fn unary(&mut self, filters: Filters) -> Result<Expr, Error> {
        let signed = |parser: &mut Parser| {
            parser.skip();
            parser.nested(|parser| parser.unary(Filters::Leave)).map(Box::new)
        };
        let value = if self.is_operator("-") {
            Expr::Negative(signed(self)?)
        } else if self.is_operator("+") {
            Expr::Positive(signed(self)?)
        } else {
            self.primary()?
        };
        let mut steps = Vec::new();
        self.postfix(&mut steps)?;
        if filters == Filters::Apply {
            self.filters_and_tests(&mut steps)?;
        }
        Ok(if steps.is_empty() { value } else { Expr::Steps(Box::new(value), steps) })
    }

    /// Parses a name, a literal, or brackets.
    fn primary(&mut self) -> Result<Expr, Error> {
        let token = self.peek().clone();
        match token {
            Token::Name(name) => {
                self.skip();
                Ok(self.name(&name))
            }
            Token::Str(mut text) => {
                self.skip();
                while let Token::Str(more) = self.peek() {
                    text.push_str(more);
                    self.skip();
                }
                Ok(Expr::Str(Arc::from(text)))
            }
            Token::Int(value) => {
                self.skip();
                Ok(Expr::Int(value))
            }
            Token::Float(value) => {
                self.skip();
                Ok(Expr::Float(value))
            }
            Token::Operator("(") => {
                self.skip();
                let (mut items, is_tuple) = self.tuple_items(&[], Parser::expression)?;
                self.expect_operator(")")?;
                match items.pop() {
                    Some(only) if !is_tuple => Ok(only),
                    last => {
                        items.extend(last);
                        Ok(Expr::Tuple(items))
                    }
                }
            }
            Token::Operator("[") => self.list(),
            Token::Operator("{") => self.dict(),
            _ => self.fail(format!("unexpected {}", describe(&token))),
        }
    }

    fn name(&mut self, name: &str) -> Expr {
        match name {
            "true" | "True" => return Expr::Bool(true),
            "false" | "False" => return Expr::Bool(false),
            "none" | "None" => return Expr::None,
            "caller" => self.uses.caller = true,
            "varargs" => self.uses.varargs = true,
            "kwargs" => self.uses.kwargs = true,
            _ => {}
        }
        Expr::Name(Arc::from(name))
    }

    fn list(&mut self) -> Result<Expr, Error> {
        self.skip();
        let mut items = Vec::new();
        while !self.is_operator("]") {
            items.push(self.expression()?);
            if !self.is_operator("]") {
                self.expect_operator(",")?;
            }
        }
        self.skip();
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Result<Expr, Error> {
        self.skip();
        let mut items = Vec::new();
        while !self.is_operator("}") {
            let key = self.expression()?;
            self.expect_operator(":")?;
            items.push((key, self.expression()?));
            if !self.is_operator("}") {
                self.expect_operator(",")?;
            }
        }
        self.skip();
        Ok(Expr::Dict(items))
    }

    fn postfix(&mut self, steps: &mut Vec<Step>) -> Result<(), Error> {
        loop {
            match self.peek() {
                Token::Operator(".") => {
                    self.skip();
                    steps.push(self.attribute()?);
                }
                Token::Operator("[") => steps.push(self.subscript()?),
                Token::Operator("(") => steps.push(Step::Call(self.arguments()?)),
                _ => return Ok(()),
            }
        }
    }

    fn filters_and_tests(&mut self, steps: &mut Vec<Step>) -> Result<(), Error> {
        loop {
            if self.skip_operator("|") {
                steps.push(Step::Filter(self.filter_call()?));
            } else if self.skip_name("is") {
                steps.push(self.test()?);
            } else if self.is_operator("(") {
                steps.push(Step::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn attribute(&mut self) -> Result<Step, Error> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.skip();
                Ok(Step::Attribute(Arc::from(name)))
            }
            Token::Int(index) => {
                self.skip();
                Ok(Step::Item(Expr::Int(index)))
            }
            _ => self.fail("expected name or number"),
        }
    }

    fn subscript(&mut self) -> Result<Step, Error> {
        self.skip();
        let first = self.subscripted()?;
        let Step::Item(first) = first else {
            self.expect_operator("]")?;
            return Ok(first);
        };
        if self.skip_operator("]") {
            return Ok(Step::Item(first));
        }
        let mut items = vec![first];
        while !self.skip_operator("]") {
            self.expect_operator(",")?;
            if !self.is_operator("]") {
                items.push(self.expression()?);
            }
        }
        Ok(Step::Item(Expr::Tuple(items)))
    }

    fn subscripted(&mut self) -> Result<Step, Error> {
        let mut bounds = [None, None, None];
        let mut colons = 0;
        loop {
            if self.skip_operator(":") {
                colons += 1;
                if colons > 2 {
                    return self.fail("unexpected ':'");
                }
            } else if self.is_operator("]") || self.is_operator(",") {
                break;
            } else if bounds[colons].is_some() {
                return self.expected("']'");
            } else {
                bounds[colons] = Some(self.expression()?);
            }
        }
        match (colons, bounds) {
            (0, [Some(index), ..]) => Ok(Step::Item(index)),
            (0, _) => self.fail("expected subscript expression"),
            (_, bounds) => Ok(Step::Slice(Box::new(bounds))),
        }
    }

    pub(super) fn filter_call(&mut self) -> Result<FilterCall, Error> {
        let name = self.dotted_name()?;
        self.check_filter(&name);
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(FilterCall { name: Arc::from(name), arguments })
    }

    fn dotted_name(&mut self) -> Result<String, Error> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    fn test(&mut self) -> Result<Step, Error> {
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        self.check_test(&name);
        let arguments = self.test_arguments()?;
        let call = FilterCall { name: Arc::from(name), arguments };
        Ok(if negated { Step::NotTest(call) } else { Step::Test(call) })
    }

    /// Parses the arguments of a test; a single one needs no brackets.
    fn test_arguments(&mut self) -> Result<Arguments, Error> {
        let bare = match self.peek() {
            Token::Operator("(") => return self.arguments(),
            Token::Name(name) if name == "is" => return self.fail("You cannot chain multiple tests with is"),
            Token::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        if !bare {
            return Ok(Arguments::default());
        }
        let value = self.nested(Parser::primary)?;
        let mut steps = Vec::new();
        self.postfix(&mut steps)?;
        let value = if steps.is_empty() { value } else { Expr::Steps(Box::new(value), steps) };
        Ok(Arguments { positional: vec![value], ..Arguments::default() })
    }

    fn arguments(&mut self) -> Result<Arguments, Error> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        while !self.skip_operator(")") {
            self.argument(&mut arguments)?;
            if !self.is_operator(")") {
                self.expect_operator(",")?;
            }
        }
        Ok(arguments)
    }

    fn argument(&mut self, arguments: &mut Arguments) -> Result<(), Error> {
        let invalid = "invalid syntax for function call expression";
        if self.skip_operator("*") {
            if arguments.spread.is_some() || arguments.spread_named.is_some() {
                return self.fail(invalid);
            }
            arguments.spread = Some(self.expression()?);
        } else if self.skip_operator("**") {
            if arguments.spread_named.is_some() {
                return self.fail(invalid);
            }
            arguments.spread_named = Some(self.expression()?);
        } else if matches!(self.peek(), Token::Name(_)) && *self.peek_second() == Token::Operator("=") {
            if arguments.spread_named.is_some() {
                return self.fail(invalid);
            }
            let name = self.expect_name()?;
            self.skip();
            arguments.named.push((Arc::from(name), self.expression()?));
        } else {
            if arguments.spread.is_some() || arguments.spread_named.is_some() || !arguments.named.is_empty() {
                return self.fail(invalid);
            }
            arguments.positional.push(self.expression()?);
        }
        Ok(())
    }
}

/// Whether filters and tests after an operand belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filters {
    Apply,
    Leave,
}

/// Returns the only operand, or combines several with `many`.
fn alone(mut operands: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match operands.pop() {
        Some(only) if operands.is_empty() => only,
        last => {
            operands.extend(last);
            many(operands)
        }
    }
}
