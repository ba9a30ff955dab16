"""Accounts: the rows of auth.users, made by whoever runs the platform."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from pgfleet_local.auth.passwords import MOST_CHARACTERS, hashed
from pgfleet_local.settings import LocalError

LEAST_CHARACTERS = 6
_ADDRESS = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
_INSERT = """
insert into auth.users (
  id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data,
  raw_user_meta_data, created_at, updated_at
)
values (
  %s, 'authenticated', 'authenticated', %s, %s, now(),
  '{"provider": "email", "providers": ["email"]}', '{}', now(), now()
)
on conflict do nothing
returning id, email, created_at
"""
_LIST = """
select id, email, created_at, last_sign_in_at
from auth.users
where deleted_at is null
order by email, id
"""
_FIND = """
select id::text, email, raw_app_meta_data, raw_user_meta_data
from auth.users
where email = %s and deleted_at is null
"""
_DELETE = "delete from auth.users where email = %s returning id, email"


class UserError(LocalError):
    """Raised when an account cannot be made."""


def create_user(
    admin_url: str, email: str, password: str, user_id: UUID | None = None
) -> dict[str, Any]:
    """Make an account, confirmed at once, or raise `UserError`."""
    address = email.strip().lower()
    if not _ADDRESS.fullmatch(address):
        raise UserError(f'"{email}" is no e-mail address')
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise UserError(
            f"a password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters, "
            f"this one has {len(password)}"
        )
    with psycopg.connect(admin_url, row_factory=dict_row) as conn:
        row = conn.execute(_INSERT, (user_id or uuid4(), address, hashed(password))).fetchone()
    if row is None:
        raise UserError(f'there is an account of "{address}" already')
    return row


def list_users(admin_url: str) -> list[dict[str, Any]]:
    """List the accounts by their addresses."""
    with psycopg.connect(admin_url, row_factory=dict_row) as conn:
        return conn.execute(_LIST).fetchall()


def find_user(admin_url: str, email: str) -> dict[str, Any]:
    """Give what a token says of an account, or raise `UserError`."""
    with psycopg.connect(admin_url, row_factory=dict_row) as conn:
        row = conn.execute(_FIND, (email.strip().lower(),)).fetchone()
    if row is None:
        raise UserError(f'there is no account of "{email}"')
    return row


def delete_user(admin_url: str, email: str) -> dict[str, Any]:
    """Delete an account with its sessions, or raise `UserError`; memberships stay."""
    with psycopg.connect(admin_url, row_factory=dict_row) as conn:
        row = conn.execute(_DELETE, (email.strip().lower(),)).fetchone()
    if row is None:
        raise UserError(f'there is no account of "{email}"')
    return row
