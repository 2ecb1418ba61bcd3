//! What server and agent both know of the policy language: values for templates, conditions.

pub mod compile;
pub mod dag;
pub mod firewall;
pub mod model;
pub mod names;
pub mod params;
pub mod parse;
pub mod secrets;
pub mod shapes;
pub mod template;
pub mod trait_keys;
pub mod types;
pub mod value;

pub use compile::compile_file;
