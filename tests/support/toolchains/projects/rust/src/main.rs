use std::thread;

fn total() -> u32 {
    let parts: Vec<_> = (0..10).map(|n| thread::spawn(move || dep::same(n))).collect();
    parts.into_iter().map(|part| part.join().unwrap()).sum()
}

fn main() {
    assert_eq!(env!("BUILT"), "true");
    println!("{}", total());
}

#[test]
fn adds() {
    assert_eq!(total(), 45);
}
