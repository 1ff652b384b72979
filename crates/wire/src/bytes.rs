//! A bounds-checked reader and a writer: no length from the wire is used before it is checked.
