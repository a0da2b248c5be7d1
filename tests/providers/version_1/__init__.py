"""Providers made for version 1 of the contract, as AGS wrote and shipped them then, and tests of them.

`line` is what startprovider wrote with `--upstream`, `voucher` that of its guide, `partner_jwt` a copy of
`signed_jwt`. tests/providers/test_version_1.py runs these tests in a process that has the three installed.
"""
