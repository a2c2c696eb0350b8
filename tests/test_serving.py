from diffjax import serving


def test_bad_flags_end_with_one_line(tmp_path, capsys):
    flags = ["--stages", str(tmp_path), "--out", str(tmp_path / "out")]
    assert serving.main([*flags, "--platforms", "cpu,abacus"]) == 2
    assert "--platforms = 'cpu,abacus'" in capsys.readouterr().err
    assert serving.main([*flags, "--batch", "0"]) == 2
    assert "--batch = 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
