//! Python's pickle format as plain data: nothing is ever called.
//!
//! A pickle is a program for a stack machine that may name any function of any module and call
//! it. Here such a call becomes a [`Node::Object`], a record of what would have been called with
//! what, and only for names that the caller has listed; every other name, and every opcode that
//! weights do not need, ends the reading with an error that says which one and where.
//!
//! # Bounds
//! Values live in one list and refer to each other by index, so that neither deep nesting nor a
//! cycle costs anything but its own entries, and a value used a million times is stored once.
//! Each opcode makes at most one entry; there are at most [`MAX_OPCODES`]. Texts and arrays are
//! borrowed from the file.

mod machine;
#[cfg(test)]
mod tests;

/// A state dict has some 40 for each tensor; this many are 50 MB of entries at the very worst.
pub const MAX_OPCODES: usize = 1 << 18;

/// The name of Python's ordered dictionary, which [`Pickle::entries`] takes for one.
pub const ORDERED_DICT: &str = "collections.OrderedDict";

/// A value on the machine's stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number of at most 64 bits.
    Int(i64),
    /// A longer one, as little-endian two's complement.
    Long(&'a [u8]),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Str(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A class or function, one of those that were allowed, as `module.name`.
    Global(&'static str),
    /// An entry of the pickle's list; see [`Pickle::node`].
    Node(usize),
}

/// A value with parts.
#[derive(Debug)]
pub enum Node<'a> {
    /// `(…)`.
    Tuple(Vec<Value<'a>>),
    /// `[…]`.
    List(Vec<Value<'a>>),
    /// `{…}`, in the order in which the file sets the keys.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// What a call of `callable` would have made.
    Object(Object<'a>),
    /// Something stored elsewhere, by the identifier it has there.
    Persistent(Value<'a>),
}

/// A call that was not made.
#[derive(Debug)]
pub struct Object<'a> {
    /// What would have been called, as `module.name`.
    pub callable: &'static str,
    /// With what: a tuple.
    pub args: Value<'a>,
    /// The argument that its `__setstate__` would have received.
    pub state: Option<Value<'a>>,
    /// Keys set on it afterwards.
    pub items: Vec<(Value<'a>, Value<'a>)>,
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle<'a> {
    root: Value<'a>,
    nodes: Vec<Node<'a>>,
    length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle from the beginning of `bytes`. What follows it is left alone.
    ///
    /// `allowed` are the classes and functions that it may name, as `module.name`.
    ///
    /// # Errors
    /// The first thing that is not a whole pickle of protocol 2 to 5 within those bounds.
    pub fn read(bytes: &'a [u8], allowed: &'static [&'static str]) -> Result<Self, PickleError> {
        machine::run(bytes, allowed)
    }

    /// The value as a whole.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// How many bytes the pickle took.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The parts of a value that has some.
    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }

    /// The parts of a tuple.
    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Tuple(parts) => Some(parts),
            _ => None,
        }
    }

    /// A call of `callable`.
    pub fn object(&self, value: Value<'a>, callable: &str) -> Option<&Object<'a>> {
        match self.node(value)? {
            Node::Object(object) if object.callable == callable => Some(object),
            _ => None,
        }
    }

    /// What `object` would have been made with.
    pub fn args(&self, object: &Object<'a>) -> &[Value<'a>] {
        self.tuple(object.args).unwrap_or_default()
    }

    /// Keys and values of a dictionary, an ordered one included.
    pub fn entries(&self, value: Value<'a>) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries.clone()),
            Node::Object(object) if object.callable == ORDERED_DICT => {
                let mut entries = Vec::new();
                // Python 2 gives the entries to the constructor, as a list of pairs.
                match self.args(object) {
                    [] => {}
                    [pairs] => {
                        let Some(Node::List(pairs)) = self.node(*pairs) else {
                            return None;
                        };
                        for pair in pairs {
                            match self.node(*pair)? {
                                Node::Tuple(p) | Node::List(p) if p.len() == 2 => {
                                    entries.push((p[0], p[1]));
                                }
                                _ => return None,
                            }
                        }
                    }
                    _ => return None,
                }
                entries.extend(&object.items);
                Some(entries)
            }
            _ => None,
        }
    }

    /// What kind of value it is, in Python's words.
    pub fn kind(&self, value: Value<'a>) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) | Value::Long(_) => "an int",
            Value::Float(_) => "a float",
            Value::Str(_) => "a str",
            Value::Bytes(_) => "bytes",
            Value::Global(name) => name,
            Value::Node(index) => match self.nodes.get(index) {
                Some(Node::Tuple(_)) => "a tuple",
                Some(Node::List(_)) => "a list",
                Some(Node::Dict(_)) => "a dict",
                Some(Node::Object(object)) => object.callable,
                Some(Node::Persistent(_)) => "a storage",
                None => "nothing",
            },
        }
    }
}

/// Why bytes were not read as a pickle. Offsets count from the pickle's first byte.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The bytes end inside the pickle.
    #[error("it ends inside the pickle: opcode {opcode} at offset {offset} needs more bytes")]
    Truncated {
        /// The opcode.
        opcode: String,
        /// Where it stands.
        offset: usize,
    },
    /// The bytes end where an opcode should stand.
    #[error("it ends at offset {offset}, before the pickle does")]
    Unfinished {
        /// Where.
        offset: usize,
    },
    /// An opcode that weights do not need.
    #[error("opcode {opcode} at offset {offset} is not allowed: weights do not need it")]
    Opcode {
        /// The opcode.
        opcode: String,
        /// Where it stands.
        offset: usize,
    },
    /// A class or function that is not on the list.
    #[error(
        "it names `{name}` at offset {offset}, which is not allowed: only tensors by name are \
         read, no program objects"
    )]
    Global {
        /// The name, as `module.name`.
        name: String,
        /// Where it is named.
        offset: usize,
    },
    /// An opcode found a value of the wrong kind.
    #[error("opcode {opcode} at offset {offset} does not fit what stands before it")]
    Operand {
        /// The opcode.
        opcode: String,
        /// Where it stands.
        offset: usize,
    },
    /// A memo entry that was never set.
    #[error("offset {offset} asks for the remembered value {index}, which there is not")]
    Memo {
        /// Its number.
        index: u32,
        /// Where it is asked for.
        offset: usize,
    },
    /// A text that is none.
    #[error("the text at offset {offset} is not UTF-8")]
    Text {
        /// Where.
        offset: usize,
    },
    /// A newer or older format.
    #[error("the pickle is of protocol {version}; 2 to 5 are read")]
    Protocol {
        /// Its number.
        version: u8,
    },
    /// More opcodes than any file of weights has.
    #[error("the pickle has more than {MAX_OPCODES} opcodes, which no file of weights has")]
    TooLong,
}
