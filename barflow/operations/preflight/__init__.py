"""`barflow preflight`: checks of an AWS account before a deployment. Every call only reads."""
