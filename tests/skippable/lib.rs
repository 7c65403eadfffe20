//! `#[test]` for tests/it: std's, around a body that may find a program missing. libtest knows no test
//! that is skipped at run time, so `support::run_test` runs the body and ends such a test as passed.

use proc_macro::{Delimiter, Group, Literal, TokenStream, TokenTree};

/// Of `fn name() { body }` it makes `fn name() { crate::support::run_test(NAME, EXPECTED, || { body }) }`,
/// in which EXPECTED is the message that `#[should_panic]` waits for, if the test has that attribute.
#[proc_macro_attribute]
pub fn test(_: TokenStream, item: TokenStream) -> TokenStream {
    let mut item: Vec<TokenTree> = item.into_iter().collect();
    let body = item.pop();
    let name = Literal::string(&format!("::{}", name(&item)));
    let expected = item.iter().find_map(expected);
    let expected = expected.map_or("None".to_owned(), |text| format!("Some({text})"));
    let mut arguments = parse(&format!(
        "::core::concat!(::core::module_path!(), {name}), {expected}, ||"
    ));
    arguments.extend(body);
    let mut call = parse("crate::support::run_test");
    call.extend([group(Delimiter::Parenthesis, arguments)]);
    let mut test = parse("#[::core::prelude::v1::test]");
    test.extend(item);
    test.extend([group(Delimiter::Brace, call)]);
    test
}

/// What follows `fn`.
fn name(item: &[TokenTree]) -> String {
    let words = item.iter().map(TokenTree::to_string);
    let name = words.skip_while(|word| word != "fn").nth(1);
    name.unwrap_or_default()
}

/// The text, in quotes, of `[should_panic(expected = "text")]`; an empty one where none is named.
fn expected(attribute: &TokenTree) -> Option<String> {
    let TokenTree::Group(attribute) = attribute else {
        return None;
    };
    let mut words = attribute.stream().into_iter();
    words
        .next()
        .filter(|word| word.to_string() == "should_panic")?;
    let text = match words.next() {
        Some(TokenTree::Group(expected)) => expected.stream().into_iter().last(),
        _ => words.last(),
    };
    Some(text.map_or("\"\"".to_owned(), |text| text.to_string()))
}

fn group(delimiter: Delimiter, tokens: TokenStream) -> TokenTree {
    Group::new(delimiter, tokens).into()
}

fn parse(text: &str) -> TokenStream {
    text.parse().unwrap_or_default()
}
