//! IKEv2 between two endpoints, told as ladders of messages.

mod decrypt;
mod setup;
mod spoofed;
mod world;

mod chaos;
mod childless;
mod collide;
mod crash;
mod delete;
mod establish;
mod explore;
mod extras;
mod faults;
mod fragments;
mod held;
mod hostile;
mod ipcomp;
mod mobike;
mod multi_ke;
mod nat;
mod native;
mod null;
mod orders;
mod ppk;
mod reauth;
mod redirect;
mod rekey;
mod restore;
