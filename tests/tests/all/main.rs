//! Tests of the whole: one binary, so that the workspace is linked once.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod error_pages;
