//! Archives that are good, damaged, or made to do harm.
