//! The stack machine.

use std::collections::HashMap;

use super::{MAX_OPCODES, Node, Object, Pickle, PickleError, Value};

type Result<T> = std::result::Result<T, PickleError>;

pub(super) fn run<'a>(bytes: &'a [u8], allowed: &'static [&'static str]) -> Result<Pickle<'a>> {
    let mut machine = Machine {
        bytes,
        at: 0,
        opcode: 0,
        offset: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        allowed,
    };
    for _ in 0..MAX_OPCODES {
        if let Some(root) = machine.step()? {
            return Ok(Pickle {
                root,
                nodes: machine.nodes,
                length: machine.at,
            });
        }
    }
    Err(PickleError::TooLong)
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte to be read.
    at: usize,
    /// The opcode at work, and where it stands.
    opcode: u8,
    offset: usize,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
    allowed: &'static [&'static str],
}

impl<'a> Machine<'a> {
    /// Carries out one opcode; gives the result after the last.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        self.offset = self.at;
        let Some(&opcode) = self.bytes.get(self.at) else {
            return Err(PickleError::Unfinished { offset: self.at });
        };
        self.at += 1;
        self.opcode = opcode;
        match opcode {
            0x80 => {
                let version = self.number::<1>()? as u8;
                if !(2..=5).contains(&version) {
                    return Err(PickleError::Protocol { version });
                }
            }
            // A frame is a hint about how much to read at once.
            0x95 => self.skip_frame()?,
            b'.' => {
                let root = self.pop()?;
                let done = self.stack.is_empty() && self.marks.is_empty();
                return if done {
                    Ok(Some(root))
                } else {
                    Err(self.operand())
                };
            }
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let value = self.number::<4>()? as u32 as i32;
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.number::<1>()? as i64;
                self.push(Value::Int(value));
            }
            b'M' => {
                let value = self.number::<2>()? as i64;
                self.push(Value::Int(value));
            }
            0x8a => self.long::<1>()?,
            0x8b => self.long::<4>()?,
            b'G' => {
                let value = f64::from_bits((self.number::<8>()?).swap_bytes());
                self.push(Value::Float(value));
            }
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            // Texts of Python 2.
            b'T' => self.text::<4>()?,
            b'U' => self.text::<1>()?,
            b'B' => self.binary::<4>()?,
            b'C' => self.binary::<1>()?,
            0x8e => self.binary::<8>()?,
            b')' => self.make(Node::Tuple(Vec::new())),
            b']' => self.make(Node::List(Vec::new())),
            b'}' => self.make(Node::Dict(Vec::new())),
            b't' => {
                let parts = self.pop_to_mark()?;
                self.make(Node::Tuple(parts));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.floor_for(count)?;
                let parts = self.stack.split_off(from);
                self.make(Node::Tuple(parts));
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.pop_to_mark()?;
                self.append(values)?;
            }
            b's' => {
                let from = self.floor_for(2)?;
                let pair = self.stack.split_off(from);
                self.set(pair)?;
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.set(pairs)?;
            }
            b'q' => {
                let index = self.number::<1>()? as u32;
                self.remember(index)?;
            }
            b'r' => {
                let index = self.number::<4>()? as u32;
                self.remember(index)?;
            }
            0x94 => {
                let index = u32::try_from(self.memo.len()).map_err(|_| self.operand())?;
                self.remember(index)?;
            }
            b'h' => {
                let index = self.number::<1>()? as u32;
                self.recall(index)?;
            }
            b'j' => {
                let index = self.number::<4>()? as u32;
                self.recall(index)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Value::Str(module), Value::Str(name)) = (module, name) else {
                    return Err(self.operand());
                };
                self.global(module, name)?;
            }
            // REDUCE and NEWOBJ: calling a function and making an object are the same to us.
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                self.make(Node::Persistent(id));
            }
            _ => {
                return Err(PickleError::Opcode {
                    opcode: name_of(opcode),
                    offset: self.offset,
                });
            }
        }
        Ok(None)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(count).ok().and_then(|n| rest.get(..n));
        let Some(taken) = taken else {
            return Err(PickleError::Truncated {
                opcode: name_of(self.opcode),
                offset: self.offset,
            });
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// A little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut buffer = [0; 8];
        buffer[..N].copy_from_slice(self.take(N as u64)?);
        Ok(u64::from_le_bytes(buffer))
    }

    fn skip_frame(&mut self) -> Result<()> {
        let length = self.number::<8>()?;
        let at = self.at;
        self.take(length)?;
        self.at = at;
        Ok(())
    }

    fn long<const N: usize>(&mut self) -> Result<()> {
        let length = self.number::<N>()?;
        let digits = self.take(length)?;
        let value = if digits.len() <= 8 {
            let negative = digits.last().is_some_and(|last| last & 0x80 != 0);
            let mut buffer = [if negative { 0xff } else { 0 }; 8];
            buffer[..digits.len()].copy_from_slice(digits);
            Value::Int(i64::from_le_bytes(buffer))
        } else {
            Value::Long(digits)
        };
        self.push(value);
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<()> {
        let length = self.number::<N>()?;
        let bytes = self.take(length)?;
        let text = self.utf8(bytes)?;
        self.push(Value::Str(text));
        Ok(())
    }

    fn binary<const N: usize>(&mut self) -> Result<()> {
        let length = self.number::<N>()?;
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|b| *b == b'\n');
        let line = self.take(length.map_or(u64::MAX, |n| n as u64))?;
        self.at += 1;
        self.utf8(line)
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| PickleError::Text {
            offset: self.offset,
        })
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(value);
    }

    fn make(&mut self, node: Node<'a>) {
        self.stack.push(Value::Node(self.nodes.len()));
        self.nodes.push(node);
    }

    fn operand(&self) -> PickleError {
        PickleError::Operand {
            opcode: name_of(self.opcode),
            offset: self.offset,
        }
    }

    /// Where the stack's last `count` values begin, all of them above the last mark.
    fn floor_for(&self, count: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(from) if from >= floor => Ok(from),
            _ => Err(self.operand()),
        }
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        self.floor_for(1)?;
        self.stack.pop().ok_or_else(|| self.operand())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| self.operand())?;
        Ok(self.stack.split_off(mark))
    }

    /// The entry that the value on top refers to.
    fn top(&mut self) -> Result<&mut Node<'a>> {
        let from = self.floor_for(1)?;
        let error = self.operand();
        match self.stack[from] {
            Value::Node(index) => self.nodes.get_mut(index).ok_or(error),
            _ => Err(error),
        }
    }

    fn append(&mut self, values: Vec<Value<'a>>) -> Result<()> {
        let error = self.operand();
        match self.top()? {
            Node::List(list) => list.extend(values),
            _ => return Err(error),
        }
        Ok(())
    }

    fn set(&mut self, flat: Vec<Value<'a>>) -> Result<()> {
        let error = self.operand();
        let (pairs, odd) = flat.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(error);
        }
        match self.top()? {
            Node::Dict(items) | Node::Object(Object { items, .. }) => {
                items.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            _ => return Err(error),
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<()> {
        let from = self.floor_for(1)?;
        self.memo.insert(index, self.stack[from]);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let Some(value) = self.memo.get(&index) else {
            return Err(PickleError::Memo {
                index,
                offset: self.offset,
            });
        };
        self.stack.push(*value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let wanted = |allowed: &&&str| {
            let rest = allowed.strip_prefix(module);
            rest.and_then(|rest| rest.strip_prefix('.')) == Some(name)
        };
        match self.allowed.iter().find(wanted) {
            Some(allowed) => self.push(Value::Global(allowed)),
            None => {
                let name = format!("{module}.{name}");
                return Err(PickleError::Global {
                    name: shortened(&name),
                    offset: self.offset,
                });
            }
        }
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        let args = self.pop()?;
        let callable = self.pop()?;
        let (Value::Node(index), Value::Global(callable)) = (args, callable) else {
            return Err(self.operand());
        };
        if !matches!(self.nodes.get(index), Some(Node::Tuple(_))) {
            return Err(self.operand());
        }
        self.make(Node::Object(Object {
            callable,
            args,
            state: None,
            items: Vec::new(),
        }));
        Ok(())
    }

    fn build(&mut self) -> Result<()> {
        let told = self.pop()?;
        let error = self.operand();
        match self.top()? {
            Node::Object(object) if object.state.is_none() => object.state = Some(told),
            _ => return Err(error),
        }
        Ok(())
    }
}

/// A hostile file must not fill the terminal.
fn shortened(name: &str) -> String {
    let plain: String = name.chars().take(80).collect();
    let plain = plain.escape_debug().to_string();
    if name.chars().nth(80).is_some() {
        plain + "…"
    } else {
        plain
    }
}

/// The opcode's name in Python's `pickletools`, or its number.
fn name_of(opcode: u8) -> String {
    let name = match opcode {
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82..=0x84 => "EXT",
        0x85..=0x87 => "TUPLE1-3",
        0x8a => "LONG1",
        0x8b => "LONG4",
        0x8c => "SHORT_BINUNICODE",
        0x8d => "BINUNICODE8",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        b'.' => "STOP",
        b'(' => "MARK",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'J' => "BININT",
        b'K' => "BININT1",
        b'M' => "BININT2",
        b'G' => "BINFLOAT",
        b'X' => "BINUNICODE",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        b't' => "TUPLE",
        b'a' => "APPEND",
        b'e' => "APPENDS",
        b's' => "SETITEM",
        b'u' => "SETITEMS",
        b'p' => "PUT",
        b'q' => "BINPUT",
        b'r' => "LONG_BINPUT",
        b'g' => "GET",
        b'h' => "BINGET",
        b'j' => "LONG_BINGET",
        b'c' => "GLOBAL",
        b'R' => "REDUCE",
        b'b' => "BUILD",
        b'i' => "INST",
        b'o' => "OBJ",
        b'd' => "DICT",
        b'l' => "LIST",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        other => return format!("0x{other:02x}"),
    };
    name.to_owned()
}
