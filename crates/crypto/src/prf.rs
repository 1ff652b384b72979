//! prf
