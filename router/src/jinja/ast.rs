//! Syntax tree of a template; knows no value.

use std::sync::Arc;

pub(super) type Block = Vec<Node>;

/// Statement with its line.
#[derive(Debug)]
pub(super) struct Node {
    pub line: u32,
    pub what: Statement,
}

#[derive(Debug)]
pub(super) enum Statement {
    Data(Arc<str>),
    /// `{{ … }}` and `{% print … %}`.
    Print(Vec<Expr>),
    /// Conditions with their blocks, and the block of `else`.
    If(Vec<(Expr, Block)>, Block),
    For(Arc<For>),
    Set(Target, Expr),
    /// `{% set x | filters %}…{% endset %}`.
    SetBlock(Target, Vec<FilterCall>, Block),
    With(Vec<(Target, Expr)>, Block),
    /// Block in a scope of its own: `{% generation %}`, `{% autoescape %}`.
    Scope(Block),
    /// `{% block %}`, which sees only variables of the top level.
    NamedBlock(Block),
    FilterBlock(Vec<FilterCall>, Block),
    Macro(Arc<Macro>),
    /// `{% call %}`: the call, and its block as a macro named `caller`.
    Call(Expr, Arc<Macro>),
    Break,
    Continue,
    /// Statement that needs other templates, of which there are none.
    Foreign,
}

#[derive(Debug)]
pub(super) struct For {
    pub target: Target,
    pub over: Expr,
    pub condition: Option<Expr>,
    pub body: Block,
    pub otherwise: Block,
    pub recursive: bool,
}

/// Name and default value.
pub(super) type Parameter = (Arc<str>, Option<Expr>);

#[derive(Debug)]
pub struct Macro {
    pub(super) name: Arc<str>,
    /// Parameters; from some place on all have defaults.
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Block,
    pub(super) uses: MacroUses,
}

/// Special names that a macro's body reads.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MacroUses {
    pub caller: bool,
    pub varargs: bool,
    pub kwargs: bool,
}

#[derive(Debug)]
pub(super) enum Target {
    Name(Arc<str>),
    Attribute(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) struct FilterCall {
    pub name: Arc<str>,
    pub arguments: Arguments,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    /// `*list`.
    pub spread: Option<Expr>,
    /// `**dict`.
    pub spread_named: Option<Expr>,
}

/// Expression. Chains are flat, so that a tree is only as deep as its brackets.
#[derive(Debug)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// A value and the steps after it, from left to right.
    Steps(Box<Expr>, Vec<Step>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Value and condition, and the value of `else`.
    Choice(Box<[Expr; 2]>, Option<Box<Expr>>),
    /// Operators of equal precedence, from left to right.
    Binary(Box<Expr>, Vec<(Operator, Expr)>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
}

/// Step after a value.
#[derive(Debug)]
pub(super) enum Step {
    Attribute(Arc<str>),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Arguments),
    Filter(FilterCall),
    Test(FilterCall),
    NotTest(FilterCall),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}
