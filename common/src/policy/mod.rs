//! What server and agent both know of the policy language: values for templates, conditions.

pub mod params;
pub mod template;
