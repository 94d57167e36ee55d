mod demo;
mod generate;

fn main() {}
