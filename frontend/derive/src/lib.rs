//! `#[derive(Module)]` for `sinter::nn::Module`.

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Index, parse_macro_input};

/// Walks every field, in order, under its name. `#[module(skip)]` passes a field
/// over: one that is no module and no plain value.
#[proc_macro_derive(Module, attributes(module))]
pub fn derive_module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<proc_macro2::TokenStream, Error> {
    let name = &input.ident;
    let visit = body(input, false)?;
    let visit_mut = body(input, true)?;
    let (generics, types, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        impl #generics ::sinter::nn::Module for #name #types #bounds {
            #[allow(unused_variables)]
            fn visit(&self, v: &mut dyn ::sinter::nn::Visit) {
                #visit
            }
            #[allow(unused_variables)]
            fn visit_mut(&mut self, v: &mut dyn ::sinter::nn::VisitMut) {
                #visit_mut
            }
        }
    })
}

/// The body of one of the walks.
fn body(input: &DeriveInput, change: bool) -> Result<proc_macro2::TokenStream, Error> {
    Ok(match &input.data {
        Data::Struct(s) => {
            let borrow = if change { quote!(&mut self) } else { quote!(&self) };
            let visits = fields(&s.fields, change, |i, f| match &f.ident {
                Some(ident) => quote!(#borrow.#ident),
                None => {
                    let i = Index::from(i);
                    quote!(#borrow.#i)
                }
            })?;
            quote!(#(#visits)*)
        }
        Data::Enum(e) => {
            let arms = e
                .variants
                .iter()
                .map(|variant| {
                    let v = &variant.ident;
                    let bind = |i: usize, f: &syn::Field| match &f.ident {
                        Some(ident) => ident.clone(),
                        None => format_ident!("field{i}"),
                    };
                    let visits = fields(&variant.fields, change, |i, f| {
                        let b = bind(i, f);
                        quote!(#b)
                    })?;
                    let names: Vec<_> =
                        variant.fields.iter().enumerate().map(|(i, f)| bind(i, f)).collect();
                    let pattern = match &variant.fields {
                        Fields::Named(_) => quote!({ #(#names),* }),
                        Fields::Unnamed(_) => quote!(( #(#names),* )),
                        Fields::Unit => quote!(),
                    };
                    Ok(quote! {
                        #[allow(unused_variables)]
                        Self::#v #pattern => { #(#visits)* }
                    })
                })
                .collect::<Result<Vec<_>, Error>>()?;
            quote!(match self { #(#arms)* })
        }
        Data::Union(u) => {
            return Err(Error::new(u.union_token.span, "a union cannot be a module"));
        }
    })
}

/// One visit for each field that is not skipped.
fn fields(
    fields: &Fields,
    change: bool,
    place: impl Fn(usize, &syn::Field) -> proc_macro2::TokenStream,
) -> Result<Vec<proc_macro2::TokenStream>, Error> {
    let mut out = Vec::new();
    for (i, f) in fields.iter().enumerate() {
        let mut skip = false;
        for a in f.attrs.iter().filter(|a| a.path().is_ident("module")) {
            a.parse_nested_meta(|meta| {
                if meta.path.is_ident("skip") {
                    skip = true;
                    return Ok(());
                }
                Err(meta.error("expected `skip`"))
            })?;
        }
        if skip {
            continue;
        }
        let name = f.ident.as_ref().map_or_else(|| i.to_string(), |n| n.to_string());
        let name = name.trim_start_matches("r#").to_string();
        let at = place(i, f);
        if change {
            out.push(quote!(::sinter::nn::Module::visit_mut(#at, v);));
            continue;
        }
        out.push(quote! {
            ::sinter::nn::Visit::enter(v, #name);
            ::sinter::nn::Module::visit(#at, v);
            ::sinter::nn::Visit::leave(v);
        });
    }
    Ok(out)
}
