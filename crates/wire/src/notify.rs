//! Typed meaning of notify data where it has a form of its own.
