//! What is told and handed out: help, manual, README.md, share/ and releases say what the binary does.

mod dist;
mod help;
mod manual;
mod readme;
mod recipes;
mod share;
