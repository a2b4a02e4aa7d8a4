//! What a program says to people: see [`deepsim_terminal`].

pub use deepsim_terminal::{
    Stderr, command, escape, is_obeyed, json, one_line, parse, path, print, print_data, quote, tell,
};
