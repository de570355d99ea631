//! Every word that people and agents read.
