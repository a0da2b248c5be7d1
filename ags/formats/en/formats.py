"""One form for all (FORMAT_MODULE_PATH): Django takes these over what it has for the language."""

DATETIME_FORMAT = "Y-m-d H:i:s e"
