//! IKEv2 between two endpoints, told as ladders of messages.

mod decrypt;
mod setup;
mod world;

mod establish;
