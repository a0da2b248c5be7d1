"""The SQL that statements share: functions of both databases, and the rules of validity."""
