"""The steps: functions that look at an exchange, change it, or refuse the request by raising ApiError."""
