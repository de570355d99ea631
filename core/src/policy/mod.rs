//! Rules in, decision out.
