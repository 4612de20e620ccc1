"""The page for the team: where the service is and how it does."""

import streamlit as st

st.title("About this service")
