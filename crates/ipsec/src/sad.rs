//! sad
